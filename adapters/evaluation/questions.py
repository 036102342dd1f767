"""The questions that identity is measured by. No training data of the project holds any of them."""

from __future__ import annotations

import json
from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "mini" / "development"


def languages() -> tuple[str, ...]:
    """The languages that there are questions in."""
    return tuple(sorted(path.stem.removeprefix("identity_") for path in _FOLDER.glob("identity_*.json")))


def identity_questions(language: str) -> list[str]:
    """Questions about who answers, in `language`. Raises `ValueError` where there are none."""
    path = _FOLDER / f"identity_{language}.json"
    if not path.is_file():
        raise ValueError(
            f"language is {language!r}; there are identity questions in {', '.join(languages())}"
        )
    return json.loads(path.read_text(encoding="utf-8"))
