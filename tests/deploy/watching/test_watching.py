"""The shipped rules and the board, with a real Prometheus over a server under load."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.deploy.watching.board_queries import BoardPanel, panels
from tests.deploy.watching.watched import (
    FRAIL,
    METRICS_KEY,
    SHADOWED,
    LoadedServer,
    firing,
    loaded_server,
    prometheus,
    vector,
    weights_of,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedServer]:
    with loaded_server(tmp_path_factory.mktemp("watched")) as server:
        yield server


@pytest.fixture(scope="module")
def watching(
    server: LoadedServer, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("prometheus") / "shipped"
    with prometheus(str(pytestconfig.getoption("prometheus")), folder, server.url, METRICS_KEY) as client:
        yield client


def eventually(holds: Callable[[], bool], seconds: float = 40) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.3)
    return False


def test_every_rule_is_evaluated(watching: httpx.Client) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = watching.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    assert eventually(lambda: all(rule["health"] == "ok" for rule in rules()))
    assert len(rules()) > 30


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: f"{panel.row}: {panel.title}")
def test_every_panel_shows_something(watching: httpx.Client, panel: BoardPanel) -> None:
    for query, _ in panel.queries:

        def has_values(query: str = query) -> bool:
            return any(math.isfinite(float(one["value"][1])) for one in vector(watching, query))

        assert eventually(has_values), query


def test_a_row_shows_one_adapter_alone(watching: httpx.Client) -> None:
    (requests,) = (
        one for one in panels("watched-sv") if (one.row, one.title) == ("Adapter $adapter", "Requests")
    )

    def versions() -> set[str]:
        return {one["metric"]["version"] for one in vector(watching, requests.queries[0][0])}

    assert eventually(lambda: versions() == {"v1.0", "v1.1"})


def test_an_adapter_that_fails_to_load_fires_an_alert_that_clears(
    server: LoadedServer, watching: httpx.Client
) -> None:
    weights = weights_of(server, FRAIL)
    whole = weights.read_bytes()
    alert = "OneSeekAdapterLoadFailed", FRAIL
    assert alert not in firing(watching)
    weights.chmod(0o644)
    weights.write_bytes(whole[:-8] + bytes(8))
    assert server.ask(FRAIL, "Hej") == 503
    assert eventually(lambda: alert in firing(watching))
    assert eventually(lambda: ("OneSeekAdapterDamaged", "") in firing(watching))
    weights.write_bytes(whole)
    server.change(f"{SHADOWED}/settle")  # with any change the server looks at the registry again
    assert eventually(lambda: server.ask(FRAIL, "Hej") == 200), "it is served again"
    assert eventually(lambda: not {alert, ("OneSeekAdapterDamaged", "")} & firing(watching))
