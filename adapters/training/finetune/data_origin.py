"""What a run's records tell of data that were made for it. Light: whoever makes data needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where data come from that were made for one run, as its records tell it."""

    action: str = "train"
    """What the ledger calls the run."""
    made_by: str = "oneseek train identity"
    data: str = "examples of identity"
    """What the rows are, in the model card."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What decided the data, beside the options of training."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further inputs for the ledger: role to digest."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else the ledger is told."""
