"""Which registry a server follows, and what it needs to apply the registry's changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from adapters.bases import FoundBase
from adapters.ledger.provenance import Provenance
from routing.route import Router
from server.live.bases.neighbours import Neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions:
    """Which registry a server follows, and how often it looks for changes."""

    home: Path
    """The home folder, which holds the folder `registry`."""
    base: FoundBase
    seconds: float
    """Seconds between checks of the registry. 0: check it only after a change by this server."""
    provenance: Callable[[], Provenance | None] | None
    """Reads which adapters the ledger records; only these are served. None: all are. Raises `LedgerError`."""
    router: Callable[[], Router]
    """Makes a router for the registry's current languages. Raises `SettingsError`."""
    neighbours: Neighbours = field(default_factory=Neighbours)
    """The other bases of this server."""
    contested: Callable[[], list[str]] = list
    """Returns a note for each language with adapters on several bases, if the settings choose none of them
    for the language.
    """
