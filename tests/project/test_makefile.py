"""`make` on a machine that has little: what is asked of it, and what it says."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is for Linux and macOS")


def make(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTHON", "TESTS"))
    }
    return subprocess.run(
        [shutil.which("make") or "make", "--no-print-directory", *arguments],
        cwd=folder,
        env=environ if path is None else {**environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a space in its name that holds the Makefile, and a python that notes what it is asked."""
    folder = tmp_path / "a project"
    tools = tmp_path / "tools"
    for place in (folder, tools):
        place.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    write_script(
        tools / "python3",
        f"""
case "$*" in
  "-V") echo Python 3.12.0 ;;
  "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-c import sys"*) exec "{sys.executable}" "$@" ;;
  *) echo "$*" >> asked ;;
esac
""",
    )
    return folder


def write_script(path: Path, body: str) -> None:
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def asked(project: Path) -> list[str]:
    file = project / "asked"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def tools_path(project: Path) -> str:
    return f"{project.parent / 'tools'}:/usr/bin:/bin"


def test_serve_installs_once_and_passes_arguments_on(project: Path) -> None:
    first = make(project, "serve", "ARGS=--port 8011", path=tools_path(project))
    assert first.returncode == 0, first.stderr
    install, serve = asked(project)
    assert "install" in install
    assert "--group" not in install
    assert serve == "-m server serve --port 8011"
    assert [line for line in first.stdout.splitlines() if not line.startswith("oneseek: ")] == []
    assert first.stdout.count("\n") == 3

    second = make(project, "serve", path=tools_path(project))
    assert second.returncode == 0
    assert asked(project) == ["-m server serve"]


CPU = "--no-deps torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu"


def test_train_installs_no_cuda_on_a_machine_without_a_gpu(project: Path) -> None:
    write_script(project.parent / "tools" / "uname", "echo Linux\n")
    first = make(project, "train", path=tools_path(project))
    assert first.returncode == 0, first.stderr
    torch, extra = asked(project)
    assert torch.endswith(f" install --quiet {CPU}")
    assert extra.endswith(" install --quiet --use-pep517 --editable .[train]")
    assert re.search(r"\b2 GB\b.*\bCUDA\b", first.stdout)
    assert "oneseek: .venv " in first.stdout
    assert make(project, "train", "ARGS=identity --language sv", path=tools_path(project)).returncode == 0
    assert asked(project) == ["-m server train identity --language sv"]
    make(project, "serve", path=tools_path(project))
    assert asked(project) == ["-m server serve"], "the serving set is part of it"


@pytest.mark.parametrize("tool", ["nvidia-smi", "uname"])
def test_train_takes_pypis_torch_where_that_is_right(project: Path, tool: str) -> None:
    write_script(project.parent / "tools" / "uname", "echo Linux\n")
    write_script(project.parent / "tools" / tool, "echo Darwin\n")
    assert make(project, "train", path=tools_path(project)).returncode == 0
    (extra,) = asked(project)
    assert extra.endswith(" install --quiet --use-pep517 --editable .[train]")


def test_train_asks_for_the_torch_that_the_tests_run_on() -> None:
    pinned = re.search(r'"torch==([0-9.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pinned is not None
    assert f"torch=={pinned[1]}+cpu" in CPU
    for document in ("README.md", "docs/training.md"):
        assert "make train" in (ROOT / document).read_text(encoding="utf-8"), document
    shown = "pip install " + CPU.replace("torch==", "'torch==").replace("+cpu", "+cpu'")
    assert shown in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_on_a_terminal_pip_shows_what_it_installs(project: Path) -> None:
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project)
        os.environ["PATH"] = tools_path(project)
        os.execvp("make", ["make", "serve"])
    while True:
        try:
            if not os.read(terminal, 4096):
                break
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    install, _ = asked(project)
    assert "--quiet" not in install


def test_changed_dependencies_are_installed(project: Path) -> None:
    make(project, "serve", path=tools_path(project))
    asked(project)
    later = (project / ".venv" / ".serve").stat().st_mtime + 10
    os.utime(project / "pyproject.toml", (later, later))
    make(project, "serve", path=tools_path(project))
    assert "install" in asked(project)[0]


def test_test_checks_everything_and_runs_each_test_in_one_target(project: Path) -> None:
    done = make(project, "test", path=tools_path(project))
    assert done.returncode == 0, done.stderr
    lines = asked(project)
    assert "--group lint --group test" in lines[1]
    for tool in ("ruff check", "ruff format --check", "pyright", "importlinter"):
        assert any(tool in line for line in lines[2:]), tool
    # They run side by side, so any may come first.
    contract, making, serving = sorted(
        (line for line in lines if line.startswith("-m pytest")),
        key=lambda line: ("--engine" not in line, "pytest -q tests --ignore" in line),
    )
    assert contract.startswith("-m pytest -q --engine device -m not slow ")
    named = making.removeprefix("-m pytest -q ").split(" ")
    folders = [name for name in named if not name.startswith("--ignore=")]
    assert all((ROOT / folder).is_dir() for folder in folders)
    assert serving == f"-m pytest -q tests {' '.join(f'--ignore={folder}' for folder in folders)}"
    elsewhere = [name.removeprefix("--ignore=") for name in named if name not in folders]
    make(project, "test-training", path=tools_path(project))
    others = asked(project)[-2:]
    make(project, "test-bench", path=tools_path(project))
    others += asked(project)[-1:]
    found = {name for line in others for name in line.split(" ") if name.startswith("tests/")}
    assert found - {"tests/bench/live/live_suite.py"} == set(elsewhere), "each test is in one of the targets"
    make(project, "test", "TESTS=tests/routing", path=tools_path(project))
    assert asked(project)[-1] == "-m pytest -q tests/routing"


@pytest.mark.parametrize(
    "failing", ["tests/adapters tests", "pytest -q tests --ignore", "--engine device", "ruff check", "linter"]
)
def test_a_failure_in_any_of_the_processes_fails_the_whole(project: Path, failing: str) -> None:
    python = project.parent / "tools" / "python3"
    script = python.read_text().replace('*) echo "$*"', f'*"{failing}"*) exit 1 ;;\n  *) echo "$*"')
    python.write_text(script)
    assert make(project, "test", path=tools_path(project)).returncode != 0


def test_a_failed_install_is_tried_again(project: Path) -> None:
    python = project.parent / "tools" / "python3"
    working = python.read_text()
    python.write_text(working.replace('*) echo "$*" >> asked', "*install*) exit 7 ;;\n  *) :"))
    assert make(project, "serve", path=tools_path(project)).returncode != 0
    assert asked(project) == []
    (project / ".venv" / "bin" / "python").write_text(working)
    assert make(project, "serve", path=tools_path(project)).returncode == 0
    assert "install" in asked(project)[0]


def test_an_old_python_is_refused_by_name(project: Path) -> None:
    tools = project.parent / "tools"
    write_script(tools / "python3", 'case "$*" in "-V") echo Python 3.9.6 ;; *) exit 1 ;; esac\n')
    for name in ("sh", "touch", "mkdir", "printf"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    done = make(project, "serve", path=str(tools))
    assert done.returncode != 0
    assert re.search(r"3\.11.*3\.9\.6", done.stderr)


def test_help_names_every_target(project: Path) -> None:
    shown = make(project).stdout
    for target in (
        "make serve",
        "make train",
        "make test",
        "make test-training",
        "make test-vllm",
        "make test-device",
        "make test-deploy",
        "make test-bench",
        "make test-rivals",
        "make test-ray",
        "make test-ray-vllm",
        "make test-page",
        "make test-clients",
        "make screenshots",
        "make vendor",
        "make lint",
        "make clean",
    ):
        assert target in shown


def test_ci_runs_what_a_contributor_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    commands = [line for line in script.splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == [
        "make test",
        "make test-training",
        "make test-bench",
        "make test-clients",
        "make test-device",
        "make test-vllm",
        "make test-deploy",
        "make test-ray",
        "make test-page",
    ]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize(
    "target",
    [
        "test-training",
        "test-vllm",
        "test-device",
        "test-deploy",
        "test-bench",
        "test-page",
        "test-ray",
        "test-ray-vllm",
        "test-clients",
        "test-clients-heavy",
        "test-rivals",
    ],
)
def test_every_test_that_a_target_names_is_there(target: str) -> None:
    told = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    named = set(re.findall(r"(?<![\w/])tests/[\w/.]+", told.stdout))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


def test_windows_has_the_same_steps() -> None:
    script = (ROOT / "deploy" / "windows" / "serve.ps1").read_text(encoding="utf-8")
    assert script.isascii(), "Windows PowerShell reads a script without a byte order mark as ANSI"
    for step in ("-m venv", "install --quiet --editable", "-m server serve @words", "(3, 11)"):
        assert step in script
