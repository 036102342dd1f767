"""Describes where a run's generated data come from, for its records. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a run's data, if they were generated for it."""

    action: str = "train"
    """The action in the ledger's entry of the run."""
    made_by: str = "oneseek train identity"
    data: str = "examples of identity"
    """A description of the rows, for the model card."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The options that the data were generated with, besides those of training."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further inputs for the ledger: role to digest."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further details for the ledger's entry."""
