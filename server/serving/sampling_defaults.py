"""Sampling defaults of a base, from its `generation_config.json`, as in vLLM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

MOST_BYTES = 1 << 20
LEAST_TOP_P = 1e-6
"""Smallest `top_p` that engines accept. It replaces a `top_p` of 0, since both keep only the
likeliest token.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """Default values of sampling fields, from the base's `generation_config.json`; OpenAI's defaults if that
    file has none.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int | None = None
    """Default length of an answer in tokens; None: as many tokens as the context has left."""


_BOUNDS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "temperature": (float, 0.0, 2.0),
    "top_p": (float, LEAST_TOP_P, 1.0),
    "top_k": (int, 0, 2**31 - 1),
    "min_p": (float, 0.0, 1.0),
    "repetition_penalty": (float, 0.01, 100.0),
    "max_new_tokens": (int, 1, 2**31 - 1),
}


def read_defaults(base: Path) -> SamplingDefaults:
    """Read the sampling defaults of the base model in the folder `base`. Raises `ValueError`, which names the
    invalid field.
    """
    path = base / "generation_config.json"
    if not path.is_file():
        return SamplingDefaults()
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"generation_config.json is larger than {MOST_BYTES} bytes; shorten or remove it")
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"generation_config.json is not JSON, so fix or remove it: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError("generation_config.json is not a JSON object; fix or remove it")
    given = cast("dict[str, Any]", raw)
    values: dict[str, Any] = {}
    for name, (kind, least, most) in _BOUNDS.items():
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(
                f"generation_config.json: {name} is {value!r}, but must be from {least:g} to {most:g}; "
                "fix or remove it"
            )
        values[name] = kind(value)
    return SamplingDefaults(**values)
