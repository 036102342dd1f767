"""The prompts for a teacher: seeds from files, and the request to paraphrase them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.datasets.example import Example, read_example
from adapters.datasets.lines import TextLine, iterate_lines
from adapters.datasets.minhash import key
from adapters.evaluation.judge import LanguageOf
from adapters.training.loop.options import OptionError

_PARAPHRASE: Mapping[str, str] = {
    "sv": "Skriv om texten nedan med andra ord på svenska, så att den frågar efter eller ber om samma sak. "
    "Besvara den inte. Skriv bara den nya texten, på en rad.\n\nText: {prompt}",
    "en": "Write the text below again in other English words, so that it asks for the same thing. Do not "
    "answer it. Write the new text alone, on one line.\n\nText: {prompt}",
}

_OTHER = (
    "Write the text below again in other words of the same language, so that it asks for the same thing. Do "
    "not answer it. Write the new text alone, on one line.\n\nText: {prompt}"
)


@dataclass(frozen=True, slots=True)
class SeedPrompt:
    """A prompt for the teacher, with its language."""

    text: str
    source: str
    """Where the prompt is in the seed files, as FILE:LINE."""
    paraphrase: int | None = None
    """Number of the paraphrase. None for the seed itself."""

    @property
    def key(self) -> str:
        """Key that identifies the prompt."""
        return f"{key(self.text):016x}"


def read_seeds(paths: Sequence[Path], language: str, language_of: LanguageOf) -> tuple[list[SeedPrompt], int]:
    """Read the seeds in `language`, each once and in order. Also returns how many were clearly in another
    language.

    From a file of JSON lines, which is a data set, only the prompts are used. A file that ends in `.txt` has
    a prompt on each line. Raises `OptionError` naming the line, and `OSError`.
    """
    found: dict[int, SeedPrompt] = {}
    foreign = 0
    for path in paths:
        for line in iterate_lines(path):
            try:
                text, spoken = _prompt(line, path)
            except ValueError as error:
                raise OptionError("seeds", f"{path}, line {line.number}: {error}") from error
            if text is None:
                continue
            if language_of(spoken) not in (language, None):
                foreign += 1
                continue
            found.setdefault(key(text), SeedPrompt(text, f"{path.name}:{line.number}"))
    if not found:
        files = ", ".join(map(str, paths))
        raise OptionError("seeds", f"{files}: no prompt is left to ask in the language {language!r}")
    return list(found.values()), foreign


def _prompt(line: TextLine, path: Path) -> tuple[str | None, str]:
    """Return the prompt in a line, and the text that shows its language. The prompt is None if there are
    several questions.
    """
    if line.data is None:
        raise ValueError("is too long")
    if path.suffix == ".txt":
        text = line.data.decode("utf-8").strip()
        return text, text
    example: Example = read_example(line.data, path)
    if len(example.messages) != 2:
        return None, ""
    return example.messages[0].content, f"{example.prompt}\n{example.answer}"


def paraphrase_prompt(text: str, language: str) -> str:
    """Return the request that asks a teacher to paraphrase `text`."""
    return _PARAPHRASE.get(language, _OTHER).format(prompt=text)


def seed_of(seed: int, name: str) -> int:
    """Return a seed for one request, from 0 to below 2^31, the same in every run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1
