"""Options of a distillation. The command line's flags come from these fields. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.datasets import NEAR
from adapters.training.loop.options import OptionError, check_finite

_SHARES = ("near", "most_copied", "most_repeated")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """The options of a distillation: how many examples to make, how to ask the teacher, and which answers to
    drop.

    Raises `OptionError` for invalid values.
    """

    examples: int = 1000
    """Examples to make, at least."""
    paraphrases: int = 3
    """Paraphrases of each seed prompt to ask the teacher for; 0 uses only the seeds."""
    attempts: float = 3.0
    """Maximum number of answers to ask for, as a multiple of the examples."""
    concurrency: int = 8
    """Requests in flight at once. For a local teacher: prompts in one batch."""
    temperature: float = 0.7
    """Temperature of the teacher; at 0 each prompt is asked only once."""
    top_p: float = 0.95
    """Nucleus sampling of the teacher, above 0 and at most 1."""
    max_tokens: int = 256
    """Maximum number of tokens of one answer. An unfinished answer is dropped."""
    timeout: float = 120.0
    """Seconds to wait for one answer over HTTP before the request is sent again."""
    retries: int = 6
    """Maximum number of retries of a request, if the server is busy or silent, before the run ends."""
    least_characters: int = 2
    """Fewest characters of an answer that is kept."""
    most_characters: int = 2000
    """Maximum number of characters of an answer that is kept."""
    near: float = NEAR
    """Similarity from which an example is dropped as a near duplicate of a kept one."""
    most_copied: float = 0.6
    """Largest share of an answer's word triples that may also be in its prompt."""
    most_repeated: float = 0.2
    """Largest share of an answer's word triples that may repeat an earlier one in the answer."""
    least_score: int = 4
    """Lowest grade from the judge that is kept, from 1 to 5."""

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("examples", "concurrency", "max_tokens", "least_characters"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is too small; use at least 1")
        for name in ("paraphrases", "retries", "temperature"):
            if getattr(self, name) < 0:
                raise OptionError(name, f"{getattr(self, name):g} is negative; use 0 or more")
        if self.attempts < 1:
            raise OptionError("attempts", f"{self.attempts:g} is too small; use at least 1")
        if self.timeout <= 0:
            raise OptionError("timeout", f"{self.timeout:g} is too small; use more than 0")
        if not 0 < self.top_p <= 1:
            raise OptionError("top_p", f"{self.top_p:g} is out of range; use more than 0, up to 1")
        if self.most_characters < self.least_characters:
            raise OptionError(
                "most_characters",
                f"{self.most_characters} is below least_characters, {self.least_characters}",
            )
        for name in _SHARES:
            if not 0 < getattr(self, name) <= 1:
                raise OptionError(name, f"{getattr(self, name):g} is out of range; use more than 0, up to 1")
        if self.least_score not in range(1, 6):
            raise OptionError("least_score", f"{self.least_score} is out of range; use 1 to 5")

    @property
    def most_asked(self) -> int:
        """Maximum number of answers to ask for."""
        return int(self.examples * self.attempts)
