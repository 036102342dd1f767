"""What the embedded engine's thread sends to the event loop: new tokens, errors, and the engine's death."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from server.engines.embedded.scheduling.step import Sequence as Running
from server.engines.shared.stream import StepEvent
from server.errors import EngineDeadError, EngineError

Delivery = tuple[Running, StepEvent | EngineError]
"""A sequence, with a new token (`StepEvent`) or an error to send to its client."""


class Outbox(Protocol):
    """Receives the events of the engine's thread. Its methods must not block."""

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Receive the events of one engine step. Different requests can be in any order."""
        ...

    def on_death(self, error: EngineDeadError) -> None:
        """Receive the error that has ended the engine's thread. No events follow."""
        ...
