"""A disk that is full, file descriptors that are used up, a clock that is set back: nothing is lost."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from pathlib import Path

import httpx
import pytest

from adapters.ledger import Ledger, record
from adapters.registry import traffic
from adapters.registry.registry import Registry
from tests.server.administered import Place, add, administered, ask, change, done, load, two_versions
from tests.server.http_server import Serving
from tests.server.live.adapters.test_malformed import kept

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("faults"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def serving(place: Place) -> Iterator[Serving]:
    with administered(place, place.settings()) as serving:
        two_versions(serving.http, place)
        yield serving


@contextmanager
def limited(kind: str, soft: int) -> Generator[None]:
    """This process, server and all, may do no more than that for a moment."""
    import resource

    limit: int = getattr(resource, kind)
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(limit, before)


def check_full(answer: httpx.Response) -> None:
    assert answer.status_code == 507, answer.text
    error = answer.json()["error"]
    assert error["code"] in ("storage_full", 507)
    assert "\n" not in error["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("room", [-100, 0, 100, 1000, 4096])
def test_a_full_disk_leaves_everything_as_it_was(serving: Serving, place: Place, room: int) -> None:
    """Files may not grow past `room` bytes; at 0 or below past what the ledger has, and so much more."""
    client, before = serving.http, kept(place)
    limit = room if room > 0 else (place.home / "ledger" / "ledger.jsonl").stat().st_size - room
    with limited("RLIMIT_FSIZE", limit):
        answers = [
            add(client, place.more(3), alias="more", version="v1.0"),
            change(client, "zero@v1.1", "promote"),
            change(client, "zero", "canary", json={"shares": {"v1.0": 90, "v1.1": 10}}),
            change(client, "zero@v1.1", "retire"),
        ]
        served = ask(client, "zero")
    for answer in answers:
        check_full(answer)
    assert kept(place) == before
    assert Ledger.open(place.home / "ledger").verify().state == "intact"
    assert served.headers["X-OneSeek-Adapter"] == "zero@v1.0"
    assert done(change(client, "zero@v1.1", "promote"))["before"] == "zero@v1.0"
    assert done(change(client, "zero", "rollback"))["name"] == "zero@v1.0"


def test_without_descriptors_changes_wait_and_answers_go_on(
    serving: Serving, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    client, before = serving.http, kept(place)
    assert ask(client, "zero").status_code == 200, "the connection stays open"
    free = os.dup(0)
    os.close(free)
    with limited("RLIMIT_NOFILE", free):
        for answer in (
            load(client, "trial", place.more(4)),
            add(client, place.more(4), alias="trial", version="v1.0"),
            change(client, "zero@v1.1", "promote"),
        ):
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) > 0
        answer = ask(client, "zero")
        assert ask(client, "zero@v1.1").status_code == 503, "one that is not resident waits too"
    assert (answer.status_code, answer.headers["X-OneSeek-Adapter"]) == (200, "zero@v1.0")
    assert kept(place) == before
    assert "Traceback" not in caplog.text
    assert ask(client, "zero@v1.1").status_code == 200
    assert load(client, "trial", place.more(4)).status_code == 200


class Past(datetime):
    """A clock that was set back by years."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Past:
        return cls(2001, 2, 3, tzinfo=tz)


def test_a_clock_that_is_set_back_breaks_no_order(
    place: Place, serving: Serving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(place.home, home)
    ledger = Ledger.open(home / "ledger")
    registry = Registry(home, ledger)
    registry.promote("zero@v1.1")
    monkeypatch.setattr(record, "datetime", Past)
    monkeypatch.setattr(traffic, "datetime", Past)
    registry.promote("zero@v1.0")
    registry.canary("zero", {"v1.0": 90, "v1.1": 10})
    assert ledger.verify().state == "intact"
    assert registry.listing().find("zero").full_name == "zero@v1.0"
    times = [entry.time for entry in ledger.entries()]
    assert times[-1] < times[0], "time is told, and decides nothing"
    (home / "registry" / "active.json").write_text("{", "utf-8")
    assert registry.repair().state("zero").history[-1] == "v1.0", "by the order of entries, not by their time"
