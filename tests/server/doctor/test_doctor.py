"""`oneseek doctor` finds each fault, says what to do about it, and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from adapters.home import FORMAT_FILE
from adapters.ledger import Ledger, Record
from adapters.lora.manifest import Adapter
from server.__main__ import main
from server.config.settings import resolve_settings
from server.doctor import examine as examining
from server.doctor.examine import CHECKS, examine
from server.doctor.findings import Finding, Severity, ok
from server.doctor.machine import usable_cores
from server.doctor.subject import Subject
from tests.server.engines.embedded.runners.windowsml.machine import recorded_provider, windows
from tests.server.http_server import Serving

ROOT = Path(__file__).resolve().parents[3]
FORMER_HOME = ROOT / "tests/homes/format-1"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes and limits")

Examine = Callable[..., list[Finding]]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [one for one in os.environ if one.startswith(("ONESEEK_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ONESEEK_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a registry and a ledger."""
    shutil.copytree(FORMER_HOME, tmp_path / "home")
    (tmp_path / "home/ledger/key.pem").chmod(0o600)
    return tmp_path / "home"


@pytest.fixture
def check(tmp_path: Path, tiny_base: Path) -> Examine:
    """What the checks of some names find, with settings as flags give them."""

    def find(*names: str, environ: dict[str, str] | None = None, **flags: str) -> list[Finding]:
        given = {"base_model": str(tiny_base), "home": str(tmp_path / "home"), "port": "0"} | flags
        subject = Subject(resolve_settings(given, environ={}), None, environ or {}, tmp_path)
        return [one for name, run in CHECKS if name in names for one in run(subject)]

    return find


def of(findings: list[Finding], severity: Severity) -> list[Finding]:
    return [one for one in findings if one.severity == severity]


def only(findings: list[Finding], severity: Severity) -> Finding:
    (found,) = of(findings, severity)
    assert found.remedy
    return found


def test_a_whole_installation_has_no_fault(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["doctor", "--port", "0"]) == 0
    shown = capsys.readouterr().out
    assert "FAULT" not in shown
    for name, _ in CHECKS:
        assert f" {name} " in shown


def test_as_json_it_can_be_pasted_into_a_report(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home.parent))
    monkeypatch.setenv("ONESEEK_API_KEYS", "a-very-secret-key-of-mine")
    assert main(["doctor", "--json", "--port", "0"]) == 0
    text = capsys.readouterr().out
    shown = json.loads(text)
    assert shown["verdict"] in ("ok", "warning")
    assert all(set(row) == {"check", "severity", "message", "remedy"} for row in shown["findings"])
    assert all((row["severity"] == "ok") is (row["remedy"] is None) for row in shown["findings"])
    assert "a-very-secret" not in text
    assert str(home.parent) not in text
    assert "~/home" in text


def test_nothing_is_changed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> list[tuple[str, int, bytes]]:
        files = sorted(path for path in home.parent.rglob("*") if path.is_file())
        folders = [(str(path), path.stat().st_mtime_ns, b"") for path in sorted(home.parent.rglob("*"))]
        return folders + [(str(path), 0, path.read_bytes()) for path in files]

    before = state()
    main(["doctor", "--port", "0"])
    assert state() == before


def test_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--port", "0"]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("port: 80O0\n", r"^port: '80O0' .*\(oneseek\.yaml:1\)$"),
        ("prot: 8000\n", r"^prot: .*'port'"),
        ("a: [\n", r"oneseek\.yaml\b.*\bYAML\b"),
        ("\x00\xff", r"oneseek\.yaml"),
    ],
)
def test_settings_that_do_not_fit_are_a_finding_among_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    (tmp_path / "oneseek.yaml").write_bytes(text.encode("latin-1"))
    assert main(["doctor", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert re.search(named, findings[0]["message"])
    assert (findings[0]["check"], findings[0]["severity"]) == ("settings", "fault")
    assert {row["check"] for row in findings} >= {name for name, _ in CHECKS}
    assert str(tmp_path / "home") in next(row["message"] for row in findings if row["check"] == "home")


def test_a_misspelt_variable_is_a_finding_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONESEEK_PROT", "1")
    assert main(["doctor", "--json"]) == 1
    assert "ONESEEK_PORT" in json.loads(capsys.readouterr().out)["findings"][0]["message"]


def test_a_check_that_fails_itself_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Examine
) -> None:
    def broken(_subject: Subject) -> Iterator[Finding]:
        yield ok("first", "fine")
        raise OSError("no such thing")

    def sound(_subject: Subject) -> Iterator[Finding]:
        yield ok("second", "fine")

    monkeypatch.setattr(examining, "CHECKS", (("first", broken), ("second", sound)))
    subject = Subject(resolve_settings({}, environ={}), None, {}, tmp_path)
    found = list(examine(subject))
    assert [(one.check, one.severity) for one in found] == [
        ("first", "ok"),
        ("first", "fault"),
        ("second", "ok"),
    ]
    assert "OSError: no such thing" in found[1].message


def test_a_base_that_is_not_whole(check: Examine, tmp_path: Path) -> None:
    found = only(check("bases", base_model=str(tmp_path / "nowhere")), "fault")
    assert "nowhere" in found.message
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown/config.json").write_text('{"model_type": "nobody"}')
    assert only(check("bases", base_model=str(tmp_path / "unknown")), "fault")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_base_whose_download_broke_off(check: Examine, tiny_base: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "cut")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    found = only(check("bases", base_model=str(folder)), "fault")
    assert str(folder) in found.message
    assert name in found.message
    assert "again" in (found.remedy or "")


def test_adapters_that_the_settings_list(
    check: Examine, tiny_base: Path, voices: dict[str, Adapter], tmp_path: Path
) -> None:
    sv = voices["sv"].path
    assert not of(
        check("adapters", adapters=f"{sv},x={sv},y=https://example.org/a#sha256:{'0' * 64}"), "fault"
    )
    two = f"one={tiny_base},two={tiny_base}"
    assert not of(check("adapters", adapters=str(sv), bases=two, base_model="none"), "fault")
    assert "nowhere" in only(check("adapters", adapters=f"x={tmp_path}/nowhere"), "fault").message
    (tmp_path / "empty").mkdir()
    assert "adapter_config.json" in only(check("adapters", adapters=str(tmp_path / "empty")), "fault").message
    assert "a b" in only(check("adapters", adapters=f"a b={sv}"), "fault").message
    config = shutil.copytree(sv, tmp_path / "wide") / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 5}))
    assert only(check("adapters", adapters=str(tmp_path / "wide")), "fault")


def test_the_key_of_an_external_service(check: Examine) -> None:
    table = {"url": "https://api.example.com/v1", "model": "m", "api_key_env": "FAR_KEY"}
    given = json.dumps({"far": table})
    found = only(check("keys", external_models=given), "fault")
    assert "external_models.far.api_key_env names the variable FAR_KEY, which is unset" in found.message
    assert not of(check("keys", external_models=given, environ={"FAR_KEY": "secret-of-the-service"}), "fault")


def test_memory_is_held_against_the_plan_of_a_start(
    check: Examine, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "memory plan" in " ".join(one.message for one in check("bases"))
    monkeypatch.setattr("server.doctor.bases.available_memory", lambda: 200 << 20)
    found = only(check("bases"), "fault")
    assert found.check == "memory"
    assert "200 MiB" in found.message
    running = check("bases", port=serving.url.rpartition(":")[2])
    assert only(running, "warning").check == "memory"
    assert not of(running, "fault")


def test_several_bases_are_planned_together(check: Examine, tiny_base: Path) -> None:
    several = f"one={tiny_base},two={tiny_base}"
    found = check("bases", bases=several, base_model="none")
    assert "memory plan of all bases" in next(one.message for one in found if one.check == "memory")
    assert not of(found, "fault")


def test_a_port_that_another_program_has(check: Examine, serving: Serving) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert str(port) in only(check("port", port=str(port)), "fault").message
    ours = serving.url.rpartition(":")[2]
    (found,) = check("port", port=ours)
    assert (found.severity, "OneSeek" in found.message) == ("ok", True)


def test_a_home_of_a_newer_release_and_one_that_is_a_file(check: Examine, home: Path) -> None:
    (home / FORMAT_FILE).write_text("99\n")
    assert "format 99" in only(check("home"), "fault").message
    shutil.rmtree(home)
    home.write_text("")
    assert only(check("home"), "fault")
    assert not of(check("registry", "clock", "files"), "fault")


def test_a_registry_whose_pointers_or_versions_are_damaged(check: Examine, home: Path) -> None:
    (found,) = check("registry")
    assert (found.severity, found.message[:10]) == ("ok", "2 versions")
    active = home / "registry/active.json"
    whole = active.read_text()
    active.write_text("{")
    assert only(check("registry"), "fault").check == "registry"
    active.write_text(whole)
    versions = sorted((home / "registry/tiny").iterdir())
    for folder in versions:
        shutil.move(folder / "adapter_model.safetensors", folder / "moved")
    found = check("registry")
    assert [len(of(found, severity)) for severity in ("fault", "warning")] == [1, 1]
    for folder in versions:
        shutil.rmtree(folder)
    gone = only(check("registry"), "fault").message
    assert any(f"tiny@{folder.name}" in gone or str(folder) in gone for folder in versions)


def test_a_ledger_that_does_not_verify(check: Examine, home: Path) -> None:
    lines = home / "ledger/ledger.jsonl"
    assert not of(check("ledger"), "fault")
    whole = lines.read_bytes()
    lines.write_bytes(whole + b'{"half')
    assert "ledger repair" in (only(check("ledger"), "warning").remedy or "")
    lines.write_bytes(whole.replace(b"promote", b"retired", 1))
    assert "ledger verify" in (only(check("ledger"), "fault").remedy or "")
    shutil.rmtree(home / "ledger")
    assert not of(check("ledger"), "warning")
    assert only(check("ledger", require_provenance="true"), "fault")
    assert only(check("ledger", ledger_public_key=str(home / "no.pem")), "fault")


def test_a_clock_that_was_set_back(check: Examine, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(home / "ledger")
    Ledger.open(home / "ledger").append(Record(action="test", subject="now"))
    assert not of(check("clock"), "warning")
    entry = next(iter(Ledger.open(home / "ledger").entries()))
    written = json.loads(entry.line)["time"]
    monkeypatch.setattr("time.time", lambda: datetime.fromisoformat(written).timestamp() - 3600)
    assert only(check("clock"), "warning")
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert only(check("clock"), "fault")


def test_a_containers_limits_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) >= 1
    assert usable_cores(tmp_path / "nowhere") >= 1


@posix
def test_limits_that_are_too_low(check: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")

    def limited(which: int) -> tuple[int, int]:
        return (1024, 1024) if which == resource.RLIMIT_NOFILE else (40, 40)

    assert re.search(r"\bthreads\b.*\b1024\b", of(check("limits", threads="1024"), "warning")[-1].message)
    monkeypatch.setattr(resource, "getrlimit", limited)
    files, processes = of(check("limits", threads="1"), "warning")
    assert "LimitNOFILE=1200" in (files.remedy or "")
    assert processes.message.startswith("40 ")
    assert not of(check("limits", threads="1", max_connections="500"), "fault")


def test_a_server_that_is_open_to_all(check: Examine) -> None:
    assert "0.0.0.0" in only(check("keys", host="0.0.0.0"), "warning").message
    assert not of(check("keys", host="0.0.0.0", api_keys="x" * 32), "warning")
    found = only(check("keys", api_keys="short", admin_keys="y" * 32), "warning")
    assert "api_keys" in found.message
    assert "short" not in found.message.replace("shorter", "")


@posix
def test_secrets_that_others_may_read(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text("api_keys: [a-key-that-is-long-enough]\nport: 0\n")
    file.chmod(0o644)
    (home / "ledger/key.pem").chmod(0o640)
    assert main(["doctor", "--json"]) == 0  # warnings do not count
    rows = [row for row in json.loads(capsys.readouterr().out)["findings"] if row["check"] == "files"]
    assert [
        f"chmod 600 {path}" in row["remedy"]
        for row, path in zip(rows, (file, home / "ledger/key.pem"), strict=True)
    ]
    (home / "ledger/key.pem").chmod(0o600)
    file = file.rename(tmp_path / "of-production.yaml")
    assert main(["doctor", "--json", "--config", str(file)]) == 0
    (row,) = [row for row in json.loads(capsys.readouterr().out)["findings"] if row["check"] == "files"]
    assert row["remedy"] == f"Run: chmod 600 {file}"
    file.chmod(0o600)
    home.chmod(home.stat().st_mode | stat.S_IWOTH)
    assert main(["doctor", "--json"]) == 1
    (row,) = [row for row in json.loads(capsys.readouterr().out)["findings"] if row["check"] == "files"]
    assert (row["severity"], row["remedy"]) == ("fault", f"Run: chmod o-w {home}")


def test_telemetry_that_cannot_be_sent(check: Examine) -> None:
    assert not of(check("telemetry"), "warning")
    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    assert "127.0.0.1:9" in only(check("telemetry", otel="true", environ=nobody), "warning").message
    wrong = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert only(check("telemetry", otel="true", environ=wrong), "fault")
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        collector.listen()
        there = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.getsockname()[1]}"}
        assert not of(check("telemetry", otel="true", environ=there), "warning")


def test_the_provider_that_windows_ml_has_is_named_and_a_missing_one_has_a_remedy(
    check: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with windows(tmp_path / "machine.json", monkeypatch) as machine:
        machine.offer(recorded_provider("CPUExecutionProvider", "NotPresent"))
        missing = check("providers", device="windowsml")[-1]
        assert missing.severity == "fault"
        assert "oneseek devices install" in (missing.remedy or "")
        machine.offer(recorded_provider("CPUExecutionProvider"))
        found = check("providers", device="windowsml")
        assert [one.severity for one in found] == ["ok", "ok"]
        assert "CPUExecutionProvider" in found[1].message
        assert machine.downloads == []
