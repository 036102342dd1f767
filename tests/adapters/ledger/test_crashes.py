"""A process that dies while it writes leaves a ledger that verifies, or that is mended to its last entry."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapters.ledger import Ledger, Record
from adapters.ledger.journal import LedgerJournal
from tests.adapters.ledger.conftest import record

KILLS = 200
IN_ONE_LEDGER = 10
SIDE_BY_SIDE = 2

WRITERS = """
import os, sys
from pathlib import Path
from adapters.ledger import Ledger, Record

def write(folder, said):
    ledger = Ledger.open(Path(folder))
    number = 0
    while True:
        number += 1
        if number % 7 == 0:
            ledger.rotate()
            continue
        long = "x" * 50_000 if number % 5 == 0 else ""
        entry = ledger.append(Record(action="train", subject="a@v1", details={"long": long}))
        print(entry.sequence, file=said, flush=True)

for line in sys.stdin:
    folder, said = line.rstrip().split("\\t")
    writer = os.fork()
    if not writer:
        with open(said, "w") as file:
            write(folder, file)
    print(writer, flush=True)
    print(os.waitpid(writer, 0)[1], flush=True)
"""
"""Forks a writer for each line, so that none waits for Python; prints its id, and then its status."""


class Killed(BaseException):
    """In the place of SIGKILL, at one call of the operating system."""


def kill_again_and_again(folder: Path, times: int, seed: int) -> list[str]:
    """Start a writer, kill it at a random moment, judge what it left; the states that were seen."""
    chance = random.Random(seed)
    ledger, states, acknowledged = Ledger.open(folder), list[str](), 0
    writers = subprocess.Popen(
        [sys.executable, "-c", WRITERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writers.stdin is not None
    assert writers.stdout is not None
    for number in range(times):
        said = folder.with_name(f"{folder.name}-{number}.said")
        print(folder, said, sep="\t", file=writers.stdin, flush=True)
        writer = int(writers.stdout.readline())
        if chance.random() < 0.9:
            wait_for_text(said)
        time.sleep(chance.random() * 0.03)
        os.kill(writer, signal.SIGKILL)
        assert int(writers.stdout.readline()) == signal.SIGKILL
        lines = said.read_text("utf-8").split("\n")[:-1] if said.exists() else []
        acknowledged = max([acknowledged, *map(int, lines)])
        verdict = ledger.verify()
        states.append(verdict.state)
        assert verdict.state != "tampered", verdict.faults
        assert verdict.count >= acknowledged
        if chance.random() < 0.2 and verdict.state == "repairable":
            assert ledger.repair().state == "intact"
    _, wrong = writers.communicate(timeout=30)
    assert wrong == ""
    assert ledger.append(record()).sequence > acknowledged
    assert ledger.verify().state == "intact"
    return states


def wait_for_text(file: Path) -> None:
    """Wait until something was written to `file`. Raises `TimeoutError` after 30 seconds."""
    deadline = time.monotonic() + 30
    while not (file.exists() and file.stat().st_size):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing was written to {file}")
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_a_writer_killed_at_200_moments_leaves_a_ledger_that_mends(tmp_path: Path) -> None:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        runs = [
            pool.submit(kill_again_and_again, tmp_path / str(seed), IN_ONE_LEDGER, seed)
            for seed in range(KILLS // IN_ONE_LEDGER)
        ]
    states = [state for run in runs for state in run.result()]
    assert len(states) == KILLS
    assert "repairable" in states, "no kill hit a write: the test shows nothing"


def dies_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the `call`-th change on the disk, from 1, be the last: it is not made. Returns the calls so far."""
    seen = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **given: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen >= call:
                raise Killed
            return real(*args, **given)

        return step

    for module, name in ((os, "fsync"), (os, "open"), (Path, "replace"), (os, "fdopen")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    # The dead clean nothing up.
    monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
    return lambda: seen


@pytest.mark.parametrize("change", ["first", "append", "rotate"])
def test_a_death_between_any_two_steps_mends(change: str, tmp_path: Path) -> None:
    code = {"oneseek": "test"}
    start = tmp_path / "start"
    start.mkdir()
    if change != "first":
        Ledger.open(start).append(record(0))
    before = Ledger.open(start).verify().count
    states: list[str] = []
    done = False
    for call in range(1, 100):
        folder = shutil.copytree(start, tmp_path / str(call))
        with pytest.MonkeyPatch.context() as patched:
            calls = dies_at(call, patched)
            try:
                journal = LedgerJournal(folder)
                journal.rotate(code) if change == "rotate" else journal.add(record(1), code)
            except Killed:
                pass
            done = calls() < call
        verdict = Ledger.open(folder).verify()
        states.append(verdict.state)
        assert verdict.state in ("intact", "repairable", "absent"), (call, verdict.faults)
        assert verdict.count >= before
        if change != "first":
            assert Ledger.open(folder).repair().state == "intact"
        entry = Ledger.open(folder).append(record(2))
        assert entry.sequence in (before + 1, before + 2)
        after = Ledger.open(folder).verify()
        assert after.state == "intact", (call, after.faults)
        assert not list(folder.glob("key.next.pem"))
        if done:
            break
    assert done
    assert states[-1] == "intact"
    assert change == "first" or "repairable" in states


def test_a_line_torn_at_any_byte_is_set_aside_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    ledger = Ledger.open(folder)
    ledger.append(record(0))
    head, start = (folder / "head.json").read_bytes(), (folder / "ledger.jsonl").stat().st_size
    ledger.append(record(1))
    whole = (folder / "ledger.jsonl").read_bytes()
    for end in [*range(start, len(whole) - 1, 7), len(whole) - 1]:
        torn = shutil.copytree(folder, tmp_path / str(end))
        (torn / "ledger.jsonl").write_bytes(whole[:end])
        (torn / "head.json").write_bytes(head)
        verdict = Ledger.open(torn).verify()
        assert verdict.state == ("intact" if end == start else "repairable"), verdict.faults
        assert [fault.line for fault in verdict.faults] == [2][: end > start]
        entry = Ledger.open(torn).append(record(2))
        assert entry.sequence == 2
        assert Ledger.open(torn).verify().state == "intact"
        kept = b"".join(path.read_bytes() for path in torn.glob("torn-after-1-*"))
        assert kept == whole[start:end]
        shutil.rmtree(torn)


def test_a_whole_line_that_the_head_does_not_name_is_taken_in(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(record(0))
    head = (tmp_path / "head.json").read_bytes()
    ledger.append(record(1))
    (tmp_path / "head.json").write_bytes(head)
    verdict = ledger.verify()
    assert [(fault.kind, fault.line) for fault in verdict.faults] == [("head-behind", 2)]
    assert ledger.append(record(2)).sequence == 3
    assert ledger.verify().state == "intact"


def test_zeros_that_a_power_cut_left_are_set_aside(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(record(0))
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(b'{"action"' + bytes(100) + b"\n")
    assert [fault.kind for fault in ledger.verify().faults] == ["torn"]
    assert ledger.repair().state == "intact"
    assert (tmp_path / "torn-after-1-1").stat().st_size == 110


def test_two_processes_and_their_threads_write_one_chain(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from adapters.ledger import Ledger, Record\n" + (
        "for n in range(25): Ledger(Path(sys.argv[1])).append(Record(action='eval', subject=sys.argv[2]))"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "ledger"), name])
        for name in ("one", "two")
    ]
    ledger = Ledger.open(tmp_path / "ledger")

    def write() -> None:
        for _ in range(25):
            ledger.append(Record(action="eval", subject="here"))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert ledger.verify().state in ("intact", "absent")
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert [entry.sequence for entry in ledger.entries()] == list(range(1, 101))
    subjects = [entry.record.subject for entry in ledger.entries()]
    assert {name: subjects.count(name) for name in subjects} == {"one": 25, "two": 25, "here": 50}
    assert ledger.verify().state == "intact"
