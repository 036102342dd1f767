"""Read lists of words from the package's text files. Lines that begin with `#` are comments."""

from __future__ import annotations

from importlib.resources import files


def read_list(*path: str) -> list[str]:
    """Return the words of the file `path` of the package, without `.txt`, in the file's order."""
    *folders, name = path
    file = files("routing").joinpath(*folders, f"{name}.txt")
    lines = file.read_text(encoding="utf-8").splitlines()
    return [word for line in lines if not line.startswith("#") for word in line.split()]
