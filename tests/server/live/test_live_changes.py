"""Versions that take each other's place over HTTP while clients never stop asking, on either engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.administered import (
    Place,
    add,
    administered,
    ask,
    asking,
    change,
    done,
    load,
    two_versions,
    unload,
    until,
)
from tests.server.http_server import Serving


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("live"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def serving(place: Place, engine_kind: str) -> Iterator[Serving]:
    """A server that never looks at the registry by itself, and found no adapter when it started."""
    with administered(place, place.settings(), engine=engine_kind) as serving:
        yield serving


@pytest.fixture(scope="module")
def digests(serving: Serving, place: Place) -> tuple[str, str]:
    return two_versions(serving.http, place)


def test_after_the_answer_never_the_old_version_and_nothing_is_dropped(
    serving: Serving, digests: tuple[str, str]
) -> None:
    client, (first, second) = serving.http, digests
    with asking(serving, "zero") as answers:
        until(lambda: len(answers.seen) > 5)
        for _ in range(5):
            done(change(client, "zero@v1.1", "promote"))
            assert ask(client, "zero").headers["X-OneSeek-Adapter-Digest"] == second
            done(change(client, "zero", "rollback"))
            assert ask(client, "zero").headers["X-OneSeek-Adapter-Digest"] == first
    assert answers.statuses == {200}
    assert answers.pairs == {("zero@v1.0", first), ("zero@v1.1", second)}
    until(lambda: list(serving.engine.state().resident) == [first])


def test_versions_come_and_go_beside_others_that_answer(
    serving: Serving, place: Place, digests: tuple[str, str]
) -> None:
    client = serving.http
    with asking(serving, "zero", clients=2) as answers:
        done(add(client, place.more(3), alias="one", version="v1.0", language="en"))
        assert ask(client, "one").headers["X-OneSeek-Adapter"] == "one@v1.0"
        assert load(client, "extra", place.more(4)).status_code == 200
        assert ask(client, "extra").status_code == 200
        done(change(client, "one@v1.0", "retire"))
        assert ask(client, "one").status_code == 404
        assert unload(client, "extra").status_code == 200
        assert ask(client, "extra").status_code == 404
        until(lambda: list(serving.engine.state().resident) == [digests[0]])
    assert answers.statuses == {200}
