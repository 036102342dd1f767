"""Refuse to start if another distribution owns one of our top-level package names.

`server`, `adapters`, `routing` and `bench` are plain names, and others have them too: AdapterHub's `adapters`
is one. In a shared environment, Python could import half of one package and half of the other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

NAMES = ("server", "adapters", "routing", "bench")

_OURS = "oneseek"
_REMEDY = "install OneSeek in its own environment (python -m venv), or uninstall the other package"


class ForeignNameError(RuntimeError):
    """Another distribution owns one of our top-level names, or could overwrite it."""


def refuse_foreign_names(root: Path | None = None) -> None:
    """Raise `ForeignNameError` if another distribution has one of our names. Imports nothing.

    `root` is the folder that holds our packages; by default the one this file was loaded from.
    """
    root = root or Path(__file__).resolve().parent.parent
    for name in NAMES:
        found = _location(name)
        if found is not None and found != root / name:
            raise ForeignNameError(
                f"`import {name}` would load {found}, which is another package's; {_REMEDY}"
            )
    for name, distribution in _claims(root):
        raise ForeignNameError(f"{distribution} also has a top-level package `{name}`, in {root}; {_REMEDY}")


def _location(name: str) -> Path | None:
    """The folder from which `import name` would load."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.origin is None:
        return next((Path(path).resolve() for path in spec.submodule_search_locations or ()), None)
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.stem == "__init__" else origin


def _claims(root: Path) -> Iterator[tuple[str, str]]:
    """Our names, each with the other distributions that install it. Empty for a checkout."""
    for record in root.glob("*.dist-info/RECORD"):
        distribution = record.parent.name.partition("-")[0]
        if distribution == _OURS:
            continue
        content = b"\n" + record.read_bytes()
        for name in NAMES:
            if f"\n{name}/".encode() in content:
                yield name, distribution
