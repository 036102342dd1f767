"""Options of a distillation run. The flags of `oneseek distill` are generated from these fields, so this
module imports no heavy library.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapters.datasets import NEAR
from adapters.training.loop.options import OptionError, check_finite

_SHARES = ("near", "most_copied", "most_repeated")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """The options of a distillation run: how many examples to make, how to ask the teacher, and which answers
    to drop. Raises `OptionError` for invalid values.
    """

    examples: int = 1000
    """Number of examples to make. The last batch of answers may add a few more."""
    paraphrases: int = 3
    """Number of paraphrases of each seed prompt to ask the teacher for. 0 uses only the seed prompts."""
    attempts: float = 3.0
    """Maximum number of answers to ask the teacher for, as a multiple of the number of examples."""
    concurrency: int = 8
    """Number of requests in flight at once. For a local teacher, the number of prompts in one batch."""
    temperature: float = 0.7
    """Sampling temperature of the teacher. At 0, each prompt is asked only once."""
    top_p: float = 0.95
    """Nucleus sampling (top_p) of the teacher, above 0 and at most 1."""
    max_tokens: int = 256
    """Maximum number of tokens of one answer. An answer that is cut off at this limit is dropped."""
    timeout: float = 120.0
    """Seconds to wait for an answer of the teacher's server before the request is sent again."""
    retries: int = 6
    """Maximum number of retries of a request if the teacher's server is busy or does not answer. After that,
    the run ends with an error.
    """
    least_characters: int = 2
    """Minimum number of characters of an answer. Shorter answers are dropped."""
    most_characters: int = 2000
    """Maximum number of characters of an answer. Longer answers are dropped."""
    near: float = NEAR
    """Jaccard similarity, above 0 and at most 1, at which an example is dropped as a near duplicate of a kept
    one.
    """
    most_copied: float = 0.6
    """Largest fraction of an answer's word triples that may also occur in its prompt. Above it, the answer is
    dropped as a copy.
    """
    most_repeated: float = 0.2
    """Largest fraction of an answer's word triples that may occur earlier in the same answer. Above it, the
    answer is dropped as repetitive.
    """
    least_score: int = 4
    """Lowest grade from the judge, from 1 to 5, with which an example is kept."""

    def __post_init__(self) -> None:
        check_finite(self)
        for name in ("examples", "concurrency", "max_tokens", "least_characters"):
            if getattr(self, name) < 1:
                raise OptionError(name, f"{getattr(self, name)} is too small for this option; use at least 1")
        for name in ("paraphrases", "retries", "temperature"):
            if getattr(self, name) < 0:
                raise OptionError(
                    name,
                    f"{getattr(self, name):g} is negative, which this option does not allow; use 0 or more",
                )
        if self.attempts < 1:
            raise OptionError(
                "attempts", f"{self.attempts:g} is too small; allow at least 1 answer for each wanted example"
            )
        if self.timeout <= 0:
            raise OptionError("timeout", f"{self.timeout:g} is too small; use more than 0 seconds")
        if not 0 < self.top_p <= 1:
            raise OptionError("top_p", f"{self.top_p:g} is out of range; give a probability above 0, up to 1")
        if self.most_characters < self.least_characters:
            raise OptionError(
                "most_characters",
                f"{self.most_characters} is below least_characters, {self.least_characters}; raise the limit",
            )
        for name in _SHARES:
            if not 0 < getattr(self, name) <= 1:
                raise OptionError(
                    name, f"{getattr(self, name):g} is out of range; this option takes more than 0, up to 1"
                )
        if self.least_score not in range(1, 6):
            raise OptionError("least_score", f"{self.least_score} is out of range; give a grade from 1 to 5")

    @property
    def most_asked(self) -> int:
        """Maximum number of answers to ask the teacher for, over the whole run."""
        return int(self.examples * self.attempts)
