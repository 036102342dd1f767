"""Refuse to start if another package could be imported under one of OneSeek's top-level package names.

`server`, `adapters`, `routing` and `bench` are common names; AdapterHub has an `adapters` too, for example.
In a shared environment, Python could import half of one package and half of the other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

NAMES = ("server", "adapters", "routing", "bench")

_OURS = "oneseek"
_REMEDY = "install OneSeek in its own environment (python -m venv), or uninstall the other package"


class ForeignNameError(RuntimeError):
    """Another installed package has one of OneSeek's top-level names, or could overwrite OneSeek's files."""


def refuse_foreign_names(root: Path | None = None) -> None:
    """Raise `ForeignNameError` if another installed package has one of OneSeek's top-level names. Imports
    nothing.

    `root` is the folder that holds OneSeek's packages; by default, the one that holds this file's package.
    """
    root = root or Path(__file__).resolve().parent.parent
    for name in NAMES:
        found = _location(name)
        if found is not None and found != root / name:
            raise ForeignNameError(
                f"`import {name}` would load {found}, which belongs to another package; {_REMEDY}"
            )
    for name, distribution in _claims(root):
        raise ForeignNameError(
            f"the package {distribution} has a top-level module `{name}` too, in {root}; {_REMEDY}"
        )


def _location(name: str) -> Path | None:
    """Return the folder from which `import name` would load. None if there is none."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    if spec.origin is None:
        return next((Path(path).resolve() for path in spec.submodule_search_locations or ()), None)
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.stem == "__init__" else origin


def _claims(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each of OneSeek's package names that another package installed in `root` also contains, with that
    package's name. Yields nothing if OneSeek runs from a source checkout.
    """
    for record in root.glob("*.dist-info/RECORD"):
        distribution = record.parent.name.partition("-")[0]
        if distribution == _OURS:
            continue
        content = b"\n" + record.read_bytes()
        for name in NAMES:
            if f"\n{name}/".encode() in content:
                yield name, distribution
