"""Small modules in small folders, each folder described in a sentence, and no import circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("server", "adapters", "routing", "bench")
MODULES = 15
"""Most modules side by side in a folder."""
LINES = 400
"""Most lines of a module."""


def modules() -> dict[str, Path]:
    """Dotted name → file."""
    found: dict[str, Path] = {}
    for package in CODE:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Mapping[str, object]) -> Iterator[str]:
    """Which of `known` modules a file imports, at once, later or for its types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in inner]
        yield from (name for name in names if name in known)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Every module that comes back to itself, with the way it does so."""
    found: list[list[str]] = []
    for start in graph:
        ways, seen = [[start]], {start}
        while ways:
            way = ways.pop(0)
            for name in sorted(graph[way[-1]]):
                if name == start:
                    found.append([*way, start])
                    ways = []
                    break
                if name not in seen:
                    seen.add(name)
                    ways.append([*way, name])
    return found


def folders(*tops: str) -> list[Path]:
    every = {path.parent for top in tops for path in (ROOT / top).rglob("*.py")}
    return sorted(path for path in every if "__pycache__" not in path.parts)


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_imports_form_a_circle() -> None:
    known = modules()
    graph = {name: set(imported(path, known)) - {name} for name, path in known.items()}
    assert not circles(graph), "\n".join(" -> ".join(way) for way in circles(graph))


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(graph) == [["b", "c", "b"], ["c", "b", "c"]]


@pytest.mark.parametrize("folder", folders(*CODE, "tests"), ids=short)
def test_a_folder_holds_few_modules(folder: Path) -> None:
    names = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(names) <= MODULES, names


def test_a_class_has_a_name_of_its_own() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in modules().items():
        for name in types_of(ast.parse(path.read_text(encoding="utf-8"))):
            homes.setdefault(name, []).append(module)
    assert not {name: found for name, found in homes.items() if len(found) > 1}


def types_of(tree: ast.Module) -> Iterator[str]:
    """The public classes and type aliases of a module."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                pass
            case _:
                continue
        if name[0].isupper() and not name.isupper():
            yield name


def test_no_module_is_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert not {name: length for name, length in lengths.items() if length > LINES}


@pytest.mark.parametrize("folder", folders(*CODE), ids=short)
def test_a_package_says_what_it_holds(folder: Path) -> None:
    init = folder / "__init__.py"
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    assert first.endswith("."), f"{short(init)}: {first!r}"
    assert len(first.split()) >= 6, f"{short(init)}: {first!r}"


def test_tests_are_no_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
