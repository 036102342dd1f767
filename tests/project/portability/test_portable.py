"""The serving path runs on Windows as far as reading it can tell, and the reading itself can fail."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.project.portability.portable import Module, walk

ROOT = Path(__file__).resolve().parents[3]
ELSEWHERE = (
    "server.engines.vllm",
    "adapters.training",
    "adapters.distillation",
    "adapters.mini.build",
)
"""What Linux alone serves, and what trains or distils: not on Windows' way from a request to its answer."""


@cache
def serving_path() -> dict[str, Module]:
    return walk(ROOT, ["server.__main__"], ELSEWHERE, ("server", "routing", "adapters"))


def test_nothing_on_the_serving_path_is_posix_alone() -> None:
    found = [finding for module in serving_path().values() for finding in module.findings()]
    assert not found, "\n".join(map(str, sorted(found)))


@pytest.mark.parametrize(
    "module",
    [
        "server.asgi.compose",
        "server.asgi.listening",
        "server.live.follower",
        "server.grammar.probe",
        "server.engines.embedded.engine",
        "server.engines.embedded.runners.cpu.memory",
        "server.engines.embedded.runners.device.runner",
        "server.engines.embedded.runners.device.selftest",
        "routing.detect",
        "adapters.registry.registry",
        "adapters.files.atomic",
        "adapters.ledger.journal",
    ],
)
def test_the_walk_comes_to_it(module: str) -> None:
    assert module in serving_path()


def found(source: str) -> list[str]:
    return [finding.what for finding in Module("sample", source).findings()]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import fcntl", "imports fcntl"),
        ("from resource import getrlimit", "imports resource.getrlimit"),
        ("def f():\n    import pwd", "imports pwd"),
        ("import os\nos.fork()", "os.fork"),
        ("import os as system\nsystem.geteuid()", "os.geteuid"),
        ("from os import sched_getaffinity", "imports os.sched_getaffinity"),
        ("import os\nif hasattr(os, 'fork'):\n    os.geteuid() if False else os.getpid()", ""),
        ("import os\nif hasattr(os, 'name'):\n    os.fork()", "os.fork"),
        ("import os, sys\nif sys.platform == 'win32':\n    os.fork()", "os.fork"),
        ("import os, sys\nif sys.platform != 'win32':\n    pass\nelse:\n    os.fork()", "os.fork"),
        ("import os, sys\nsys.platform != 'win32' or os.fork()", "os.fork"),
        ("import os, sys\nif sys.platform != 'win32':\n    pass\nos.fork()", "os.fork"),
        ("import os\ntry:\n    os.fork()\nexcept OSError:\n    pass", "os.fork"),
        ("import signal\nsignal.SIGHUP", "signal.SIGHUP"),
        ("import mmap\nmmap.mmap(-1, 1, flags=mmap.MAP_PRIVATE)", "mmap.MAP_PRIVATE"),
        ("loop.add_signal_handler(2, stop)", ".add_signal_handler()"),
        ("path.symlink_to(other)", ".symlink_to()"),
        ("import subprocess\nsubprocess.run([], preexec_fn=f)", "preexec_fn="),
        ("import multiprocessing as m\nm.get_context('fork')", "get_context('fork')"),
        ("path.read_text()", "read_text without encoding="),
        ("path.write_text('x', encoding='utf-8')", "write_text for writing without newline="),
        ("open(path)", "open without encoding="),
        ("path.open('w', encoding='utf-8')", "open for writing without newline="),
        ("import os\nos.fdopen(handle, 'a', newline='')", "fdopen without encoding="),
    ],
)
def test_what_windows_lacks_is_found(source: str, what: str) -> None:
    assert found(source) == ([what] if what else [])


@pytest.mark.parametrize(
    "source",
    [
        "import os\nif hasattr(os, 'fork'):\n    os.fork()",
        "import os\nif os.name == 'posix':\n    os.fork()",
        "import os\nif os.name != 'posix':\n    raise SystemExit\nos.fork()",
        "import sys\nif sys.platform == 'linux':\n    import resource",
        "import os, sys\ndef f():\n    if sys.platform == 'win32':\n        return\n    os.fork()",
        "import os, sys\nWINDOWS = sys.platform == 'win32'\nif not WINDOWS:\n    os.fork()",
        "import os, sys\nx = 0 if sys.platform.startswith('win') else os.getuid()",
        "import os\nx = hasattr(os, 'getuid') and os.getuid()",
        "import os\nif not hasattr(os, 'getuid') or os.getuid():\n    pass",
        "try:\n    import uvloop\nexcept ImportError:\n    uvloop = None",
        "import subprocess, sys\nsubprocess.run([], preexec_fn=f if sys.platform != 'win32' else None)",
        "import signal\nsignal.SIGINT, signal.SIGTERM",
        "path.read_text('utf-8')\npath.read_text(encoding='utf-8')",
        "path.write_text('x', encoding='utf-8', newline='\\n')",
        "path.open('rb')\nopen(path, 'wb')\nshop.open()\narchive.open(name, 'w')",
    ],
)
def test_what_windows_does_not_come_to_is_fine(source: str) -> None:
    assert found(source) == []


def test_the_walk_follows_imports_inside_functions(tmp_path: Path) -> None:
    package = tmp_path / "server"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from server import b\n")
    (package / "b.py").write_text("from server.c import x\n")
    (package / "c.py").write_text("import fcntl\nfrom server import stopped\nx = 1\n")
    (package / "stopped.py").write_text("import fcntl\n")
    (package / "unused.py").write_text("import fcntl\n")
    modules = walk(tmp_path, ["server.a"], ["server.stopped"], ["server"])
    assert set(modules) == {"server", "server.a", "server.b", "server.c"}
    assert [str(finding) for module in modules.values() for finding in module.findings()] == [
        "server.c:1: imports fcntl"
    ]
