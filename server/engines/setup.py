"""What every engine is opened with, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.lora.manifest import Adapter
from server.engines.base import StepObserver
from server.text.tokenizer import Tokenizer


class Narration(Protocol):
    """Prints what a start does, step by step."""

    def __call__(self, line: str) -> None:
        """Print a step."""
        ...

    def progress(self, what: str) -> Callable[[int, int], None]:
        """A callback that is given (bytes done, bytes in all) and prints how far `what` is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """One base, what it will serve, and who hears of it."""

    base: Path
    """The checkpoint's folder."""
    base_name: str
    base_digest: str
    tokenizer: Tokenizer
    adapters: Sequence[Adapter]
    """Every version that is served; they size slots and ranks."""
    active: Sequence[Adapter]
    """The versions that aliases point to; a device's self-test covers them."""
    observer: StepObserver
    narrate: Narration
    environ: MutableMapping[str, str]
    """The process's environment: GPU libraries read it, and vLLM's is prepared before it is imported."""
