"""Describes where the data of a training run come from if they were generated for it, for the run's records.
This module does not need torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the data of a training run come from. The defaults describe data that were not generated for the
    run.
    """

    action: str = "train"
    """Name of the action in the run's ledger entry, such as `train`."""
    made_by: str = "oneseek train identity"
    data: str = "examples of identity"
    """Description of the training examples, for the model card."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The options with which the data were generated. The training options are not among them."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further inputs of the run for its ledger entry: maps a role to a digest."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further details for the run's ledger entry."""
