from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.version import oneseek_version
from server.__main__ import main
from server.config.settings import OPTIONS
from tests.server.surroundings import start_afresh

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "server.live.catalogue",
    "numpy",
    "onnx",
    "onnxruntime",
    "starlette",
    "uvicorn",
    "tokenizers",
    "langdetect",
    "yaml",
    "torch",
)


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start_afresh(monkeypatch, tmp_path / "home")


def oneseek(*arguments: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )


IMPORTS = "import asyncio, email.message, http.client, json, logging, ssl, typing, uuid"
"""What takes a plain interpreter a quarter to a third of what `--help` takes, on any machine."""


def test_help_starts_in_under_0_3_seconds() -> None:
    """On a slow or busy machine, in under six times what a plain interpreter with some imports takes."""

    def once(*command: str) -> float:
        """Seconds of processor time, which neighbours on the machine disturb least."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert command[-1] != "--help" or b"serve" in done.stdout
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    turns = [
        (once(sys.executable, "-m", "server", "--help"), once(sys.executable, "-c", IMPORTS))
        for _ in range(5)
    ]
    ours, plain = (min(column) for column in zip(*turns, strict=True))
    assert ours < max(0.3, 6 * plain)


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from server.__main__ import main; code = main(sys.argv[1:]); "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == "[]\n"


def test_every_setting_is_a_flag_of_serve_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in OPTIONS:
        assert f"{option.flag} " in shown or f"{option.flag}\n" in shown
    assert "probability (0 to 1)" in shown
    assert "ONESEEK_MAX_QUEUE" in shown


def test_config_shows_values_and_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "oneseek.yaml").write_text("# ours\nmax_queue: 9\n", encoding="utf-8")
    monkeypatch.setenv("ONESEEK_API_KEYS", "hemlig-nyckel")
    given = ["--port", "8011", "--no-prefix-caching", "--adapters", "a", "--adapters", "b=c"]
    assert main(["config", *given]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    shown = {name: rest.split("  ", 1)[0] + " | " + rest.rsplit("  ", 1)[1].strip() for name, rest in lines}
    assert set(shown) == {option.name for option in OPTIONS}
    assert shown["port"] == "8011 | flag --port"
    assert shown["max_queue"] == "9 | oneseek.yaml:2"
    assert shown["prefix_caching"] == "false | flag --prefix-caching"
    assert shown["adapters"] == "a, b=c | flag --adapters"
    assert shown["log_level"] == "info | default"
    assert shown["api_keys"] == "1 given, not shown | ONESEEK_API_KEYS"
    assert shown["home"].endswith("| ONESEEK_HOME")


def test_config_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json", "--port", "1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["port"] == {"value": "1", "origin": "flag --port"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "--port", "80O0"], r"^oneseek: port: '80O0' .*\(flag --port\)$"),
        (["config", "--port", "-1"], r"^oneseek: port: -1 .*\b0\b.*\b65535\b.* \(flag --port\)$"),
        (["config", "--engine", "vlm"], r"'vllm'.* \(flag --engine\)$"),
        (["config", "--prot", "1"], "--port"),
        (["config", "--config", "missing.yaml"], r"^oneseek: (.*/)?missing\.yaml: "),
        (["config", "--port"], r"--port\b"),
        (["srve"], '"serve"'),
        (["config", "superfluous"], "superfluous"),
        (["config", "--prefix-caching", "false"], "'false'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",  # pyright: ignore[reportUnknownLambdaType]
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("oneseek: ")
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err)


def test_a_misspelt_variable_is_a_mistake_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONESEEK_PROT", "1")
    assert main(["config"]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"oneseek: ONESEEK_PROT: .*'ONESEEK_PORT'.* \(environment\)\n", told)


def test_output_is_utf_8_whatever_the_console(tmp_path: Path) -> None:
    home = str(tmp_path / "hård→disk")
    done = oneseek("config", ONESEEK_HOME=home, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0
    assert home in done.stdout.decode("utf-8")


def test_without_a_verb_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: oneseek COMMAND" in capsys.readouterr().out


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "server", "config"]
    read, write = os.pipe()
    os.close(read)
    try:
        found = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert found.stderr == b""
    assert found.returncode == 1


@pytest.mark.parametrize(
    "arguments", [["data", "check", "nowhere.jsonl"], ["train", "identity", "--config", "nowhere.jsonl"]]
)
def test_a_file_that_is_not_there_is_told_without_an_errno(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    found = capsys.readouterr().err
    assert found.startswith("oneseek: nowhere.jsonl: ")
    assert found.count("\n") == 1


def test_the_version_names_the_commit() -> None:
    shown = oneseek("--version").stdout.decode().strip()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.startswith(oneseek_version())
    assert (f"(commit {head.stdout.strip()}" in shown) == (head.returncode == 0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_command_line(shell: str) -> None:
    script = oneseek("completion", shell).stdout.decode()
    for word in ("serve", "adapters", "promote", "train", "identity", "distill"):
        assert word in script, word


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["sreve"], "serve"),
        (["train", "idenity"], "identity"),
        (["train", "identity", "--langauge", "sv"], "--language"),
        (["serve", "--prot", "1"], "--port"),
        (["distill", "--techer", "x"], "--teacher"),
    ],
)
def test_a_near_miss_is_told_what_was_meant(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert re.search(rf"(?<![\w-]){re.escape(meant)}(?![\w-])", said)
