"""Load adds a replica, and quiet takes it away, without an answer lost. On a cluster of its own.

By its name the first of this folder, so that the two replicas of the other tests are not there yet.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.ray.conftest import SETTINGS
from tests.ray.running import ADMIN, Cluster, given
from tests.ray.test_cluster import ask, say

CLIENTS = 20
"""Of which a replica takes 8 at once; the others wait."""
SCALE_AFTER = 2.0
LONGEST = 90.0
"""Seconds for a decision and the start or drain of a replica, on a machine with other work too."""


@pytest.fixture(scope="module")
def scaled(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One replica, up to two."""
    folder = tmp_path_factory.mktemp("scaled")
    roots = random_base.parent
    config = SETTINGS.format(base=random_base, home=folder / "home", roots=roots, admin=ADMIN)
    running = Cluster(folder, config, replicas=1, most=2, scale_after=SCALE_AFTER)
    try:
        running.wait()
        yield running
    finally:
        running.end()


def count(cluster: Cluster) -> tuple[float, int]:
    """Replicas that take requests, and processes of replicas."""
    return cluster.metrics()["oneseek_ray_replicas"], len(cluster.replicas())


def test_running_and_waiting_requests_add_a_replica_and_quiet_takes_it_away(scaled: Cluster) -> None:
    assert count(scaled) == (1, 1)
    stop, lost = threading.Event(), list[str]()

    def client(number: int) -> int:
        answers = 0
        while not stop.is_set():
            answers += 1
            try:
                reply = ask(scaled, prompt=say(1000 * number + answers, 20), max_tokens=40)
            except httpx.HTTPError as error:
                lost.append(repr(error))
                continue
            if reply.status_code != 200:
                lost.append(reply.text[:500])
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        try:
            up = scaled.until(lambda: count(scaled) == (2, 2), LONGEST)
            before = given(scaled.metrics())
            shared = scaled.until(
                lambda: all(number > before.get(name, 0) for name, number in given(scaled.metrics()).items()),
                LONGEST,
            )
            assert len(given(scaled.metrics())) == 2
        finally:
            stop.set()
        answers = sum(one.result() for one in clients)
    down = scaled.until(lambda: count(scaled) == (1, 1), LONGEST)
    print(f"a second replica after {up:.1f} s, its requests {shared:.1f} s later, gone {down:.1f} s after")
    assert lost == []
    assert answers > CLIENTS
    assert ask(scaled, prompt=say(7, 20)).status_code == 200
