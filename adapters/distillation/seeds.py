"""Prompts for a teacher: the seed prompts in files, and the request to paraphrase a prompt."""

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
    """A prompt for the teacher: a seed prompt from a file, or a paraphrase of a seed prompt."""

    text: str
    source: str
    """File and line of the seed prompt, as FILE:LINE."""
    paraphrase: int | None = None
    """Number of the paraphrase, counted from 1. None for the seed prompt itself."""

    @property
    def key(self) -> str:
        """Key that identifies the prompt, as a hash of its text in 16 hexadecimal digits."""
        return f"{key(self.text):016x}"


def read_seeds(paths: Sequence[Path], language: str, language_of: LanguageOf) -> tuple[list[SeedPrompt], int]:
    """Read the seed prompts in `language`, in file order and without duplicates. Also return how many prompts
    were clearly in another language and left out.

    A `.txt` file has one prompt on each line. Any other file is a JSONL data set; the prompts of its examples
    with a single question are used. Raises `OptionError` that names the bad line, or if no prompt is left;
    also `OSError`.
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
        raise OptionError(
            "seeds",
            f"{files}: there is no prompt in the language {language!r}; name other seed files, or choose "
            "their language",
        )
    return list(found.values()), foreign


def _prompt(line: TextLine, path: Path) -> tuple[str | None, str]:
    """Return the prompt in `line`, and the text by which its language is detected. The prompt is None if the
    line is a conversation with more than one question or a system message.
    """
    if line.data is None:
        raise ValueError("the line has more than 4 MiB; shorten the prompt, or remove the line")
    if path.suffix == ".txt":
        text = line.data.decode("utf-8").strip()
        return text, text
    example: Example = read_example(line.data, path)
    if len(example.messages) != 2:
        return None, ""
    return example.messages[0].content, f"{example.prompt}\n{example.answer}"


def paraphrase_prompt(text: str, language: str) -> str:
    """Return the instruction that asks a teacher to paraphrase the prompt `text` in `language`."""
    return _PARAPHRASE.get(language, _OTHER).format(prompt=text)


def seed_of(seed: int, name: str) -> int:
    """Return the random seed for the request called `name`, from 0 to below 2^31. It depends only on the
    run's `seed` and `name`.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big") >> 1
