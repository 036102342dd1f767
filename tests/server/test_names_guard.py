from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.names_guard import NAMES, ForeignNameError, refuse_foreign_names

ROOT = Path(__file__).resolve().parents[2]


def foreign(folder: Path, name: str, *, init: bool = True) -> Path:
    package = folder / name
    package.mkdir(parents=True)
    (package / ("__init__.py" if init else "module.py")).write_text("raise SystemExit('imported')\n")
    return folder


def test_our_own_names_pass() -> None:
    refuse_foreign_names()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("init", [True, False], ids=["package", "namespace"])
def test_a_name_that_loads_from_elsewhere_is_refused(
    name: str, init: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(foreign(tmp_path, name, init=init))])
    # A namespace package has no spec of its own left in sys.modules to answer for it.
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ForeignNameError) as caught:
        refuse_foreign_names(ROOT)
    assert re.search(rf"`import {name}` .* {re.escape(str(tmp_path / name))}", str(caught.value))
    assert "python -m venv" in str(caught.value)


def installed(folder: Path, distribution: str, *files: str) -> None:
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_a_distribution_that_installed_over_us_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    installed(tmp_path, "oneseek", "adapters/__init__.py", "server/__init__.py")
    installed(tmp_path, "innocent", "innocent/adapters/__init__.py", "my_server/__init__.py", "server.py")
    refuse_foreign_names(tmp_path)
    installed(tmp_path, "somebody", "somebody/x.py", "adapters/__init__.py")
    with pytest.raises(ForeignNameError, match=r"somebody .*`adapters`"):
        refuse_foreign_names(tmp_path)


def test_the_command_line_says_so_and_starts_nothing(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(foreign(tmp_path, "adapters"))}
    # Our root comes last, as with an editable install; -P keeps the working directory from coming first.
    program = "import sys; sys.path.append('.'); from server.__main__ import main; sys.exit(main(['config']))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("oneseek: `import adapters` ")
    assert done.stderr.count("\n") == 1


def test_it_takes_under_20_ms() -> None:
    def once() -> float:
        start = time.perf_counter()
        refuse_foreign_names()
        return time.perf_counter() - start

    assert min(once() for _ in range(3)) < 0.020
