"""Read lists of words from the text files beside this module. Lines that begin with `#` are comments."""

from __future__ import annotations

from importlib.resources import files


def read_list(folder: str, name: str) -> frozenset[str]:
    """Read the words of the list `name` in `folder`."""
    file = files("routing").joinpath("reading", folder, f"{name}.txt")
    lines = file.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
