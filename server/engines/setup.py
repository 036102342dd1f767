"""Arguments for opening an engine, which are the same for every kind of engine."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.lora.manifest import Adapter
from server.engines.base import StepObserver
from server.text.tokenizer import Tokenizer


class Narration(Protocol):
    """Prints what the server is doing while it starts."""

    def __call__(self, line: str) -> None:
        """Print one line about the current step of the server's start."""
        ...

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return a function of (bytes done, total bytes) that prints the progress of the step `what`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """Everything needed to open the engine of one base: its files, its adapters, and the engine's
    observers.
    """

    base: Path
    """The folder with the base's checkpoint."""
    base_name: str
    base_digest: str
    tokenizer: Tokenizer
    adapters: Sequence[Adapter]
    """All adapter versions to be served. They determine the number of adapter slots and the largest LoRA
    rank.
    """
    active: Sequence[Adapter]
    """The active version of each adapter. A device's self-test runs with these versions."""
    observer: StepObserver
    narrate: Narration
    environ: MutableMapping[str, str]
    """Environment variables of this process. GPU libraries read them, and vLLM's are set before vLLM is
    imported.
    """
