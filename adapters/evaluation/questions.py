"""The questions for measuring identity. None of them is in the project's training data."""

from __future__ import annotations

import json
from pathlib import Path

from adapters.datasets.example import read_example
from adapters.datasets.lines import iterate_lines

_FOLDER = Path(__file__).parent.parent / "mini" / "development"


def languages() -> tuple[str, ...]:
    """Return the languages that have questions."""
    return tuple(sorted(path.stem.removeprefix("identity_") for path in _FOLDER.glob("identity_*.json")))


def identity_questions(language: str) -> list[str]:
    """Return the questions in `language` about who answers. Raises `ValueError` if there are none."""
    path = _FOLDER / f"identity_{language}.json"
    if not path.is_file():
        raise ValueError(
            f"language is {language!r}; there are identity questions in {', '.join(languages())}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_questions(path: Path) -> list[str]:
    """Read the questions in a file: `.txt` with one on each line, `.json` with a list, or a data set's
    prompts.

    Raises `ValueError` that names the file, and `OSError`.
    """
    if path.suffix == ".json":
        found: object = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise ValueError(f"{path} is not a JSON list of questions; each must be text")
        questions = [str(one).strip() for one in found]
    elif path.suffix == ".txt":
        questions = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        questions = [_first_question(line.data, line.number, path) for line in iterate_lines(path)]
    questions = list(dict.fromkeys(one for one in questions if one))
    if not questions:
        raise ValueError(f"{path} is empty; write one question on each line of a .txt file")
    return questions


def _first_question(data: bytes | None, number: int, path: Path) -> str:
    try:
        messages = read_example(data or b"", path).messages
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
    return next(message.content for message in messages if message.role == "user")
