"""Common arguments for opening an engine."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.lora.manifest import Adapter
from server.engines.base import StepObserver
from server.text.tokenizer import Tokenizer


class Narration(Protocol):
    """Prints the steps of a start."""

    def __call__(self, line: str) -> None:
        """Print a message about the step of the start that is under way."""
        ...

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return a function of (bytes done, bytes in all) that prints the progress of `what`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """The base, its adapters, and the observers of an engine."""

    base: Path
    """The folder with the base's checkpoint."""
    base_name: str
    base_digest: str
    tokenizer: Tokenizer
    adapters: Sequence[Adapter]
    """All served versions, which determine the number of slots and the largest rank."""
    active: Sequence[Adapter]
    """The active versions, which a device's self-test covers."""
    observer: StepObserver
    narrate: Narration
    environ: MutableMapping[str, str]
    """The process's environment: GPU libraries read it, and vLLM's is prepared before it is imported."""
