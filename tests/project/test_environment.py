"""The process's environment is read in one module; what else needs of it is passed down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READER = "server/config/environment.py"
CHILDREN = {
    "adapters/distillation/teacher.py": "a teacher's process gets this one's environment",
    "adapters/training/loop/child.py": "a process with torch gets this one's environment",
    "adapters/pth/conversion.py": "a confined process gets a few variables of this one's",
}
"""Modules that prepare the environment of a child process."""
READS = frozenset({"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"})
HOMES = frozenset({"expanduser", "home"})
"""`Path.expanduser`, `os.path.expanduser` and `Path.home` look at HOME."""


def reads(source: str) -> Iterator[int]:
    """Lines at which a module reads the environment."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="os" | "posix" | "nt"), attr=name) if name in READS:
                yield node.lineno
            case ast.ImportFrom(module="os" | "posix" | "nt", names=names):
                if READS & {alias.name for alias in names}:
                    yield node.lineno
            case ast.Call(func=ast.Attribute(attr="expanduser")):
                yield node.lineno
            case ast.ImportFrom(module="os.path", names=names):
                if HOMES & {alias.name for alias in names}:
                    yield node.lineno
            case ast.Attribute(value=ast.Name(id="Path"), attr="home"):
                yield node.lineno
            case _:
                pass


def modules() -> list[str]:
    files = (path for top in ("server", "adapters", "routing") for path in (ROOT / top).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in files)


def test_one_module_reads_the_environment() -> None:
    found = {
        f"{name}:{line}"
        for name in modules()
        if name != READER and name not in CHILDREN
        for line in reads((ROOT / name).read_text(encoding="utf-8"))
    }
    assert not found, f"read it in {READER} and pass it down"


@pytest.mark.parametrize("name", [READER, *CHILDREN])
def test_who_may_read_it_does(name: str) -> None:
    assert list(reads((ROOT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['HOME']",
        "import os\nif 'A' in os.environ: pass",
        "import os\nos.getenv('A')",
        "from os import environ",
        "from pathlib import Path\nPath('~').expanduser()",
        "from pathlib import Path\nPath.home()",
        "import os.path\nos.path.expanduser('~')",
        "def f():\n    from os import getenv as get",
    ],
)
def test_each_way_to_read_it_is_found(source: str) -> None:
    assert list(reads(source))


def test_a_mapping_of_that_name_is_none() -> None:
    assert not list(reads("def f(environ):\n    return environ.get('A')"))
