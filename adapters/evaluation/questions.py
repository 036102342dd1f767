"""The questions that measure whether a model says that it is OneSeek. They are not part of the project's
training data.
"""

from __future__ import annotations

import json
from pathlib import Path

from adapters.datasets.example import read_example
from adapters.datasets.lines import iterate_lines

_FOLDER = Path(__file__).parent.parent / "mini" / "development"


def languages() -> tuple[str, ...]:
    """Return the codes of the languages that have built-in identity questions."""
    return tuple(sorted(path.stem.removeprefix("identity_") for path in _FOLDER.glob("identity_*.json")))


def identity_questions(language: str) -> list[str]:
    """Return the built-in questions in `language` that ask who the model is. Raises `ValueError` if there are
    none in that language.
    """
    path = _FOLDER / f"identity_{language}.json"
    if not path.is_file():
        raise ValueError(
            f"language is {language!r}; there are built-in questions only in {', '.join(languages())}"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_questions(path: Path) -> list[str]:
    """Read evaluation questions from a file: a `.txt` file with a question on each line, a `.json` file with
    a list, or a JSONL data set, of which the first question of each example is used.

    Raises `ValueError` that names the file if it holds no questions or invalid data, and `OSError`.
    """
    if path.suffix == ".json":
        found: object = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise ValueError(f"{path} must hold a JSON list of questions, each of them a text")
        questions = [str(one).strip() for one in found]
    elif path.suffix == ".txt":
        questions = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        questions = [_first_question(line.data, line.number, path) for line in iterate_lines(path)]
    questions = list(dict.fromkeys(one for one in questions if one))
    if not questions:
        raise ValueError(
            f"{path} does not hold any question; write at least one, such as a line in a .txt file"
        )
    return questions


def _first_question(data: bytes | None, number: int, path: Path) -> str:
    try:
        messages = read_example(data or b"", path).messages
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
    return next(message.content for message in messages if message.role == "user")
