"""A replica is killed while both are busy: what its requests get, and how soon there are two again.

After `test_cluster`, whose cluster it uses.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from tests.ray.running import Cluster
from tests.ray.test_cluster import FIRST, ask, say

CLIENTS = 12
TOKENS = 40
STREAMED_TOKENS = 200
"""Enough that some stream is under way when the replica is killed, also while the machine is busy."""
RECOVERY_SECONDS = 30


@dataclass
class Outcomes:
    """What became of the requests."""

    whole: int = 0
    streamed: int = 0
    broken: list[int] = field(default_factory=list[int])
    """Of each stream that ended with an error event: events with text before it."""
    lost: list[str] = field(default_factory=list[str])


def ask_whole(cluster: Cluster, seed: int, outcomes: Outcomes) -> None:
    reply = ask(cluster, prompt=say(seed, 20), max_tokens=TOKENS, return_token_ids=True)
    body = reply.json()
    if reply.status_code != 200 or len(body["choices"][0]["token_ids"]) != TOKENS:
        outcomes.lost.append(reply.text[:500])
    else:
        outcomes.whole += 1


def ask_streamed(cluster: Cluster, seed: int, outcomes: Outcomes) -> None:
    body = {
        "model": "base",
        "prompt": say(seed, 20),
        "max_tokens": STREAMED_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    events = 0
    with cluster.client.stream(
        "POST", "/v1/completions", json=body, headers={"Authorization": f"Bearer {FIRST}"}
    ) as reply:
        if reply.status_code != 200:
            outcomes.lost.append(reply.read().decode()[:500])
            return
        for line in reply.iter_lines():
            if line == "data: [DONE]":
                outcomes.streamed += 1
                return
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    assert event["error"]["code"] == "engine_dead", event
                    outcomes.broken.append(events)
                    return
                events += 1
    outcomes.lost.append("a stream ended without an end")


def test_a_killed_replica_costs_nobody_who_has_nothing_yet(cluster: Cluster) -> None:
    cluster.until(lambda: cluster.metrics()["oneseek_ray_replicas"] == 2, RECOVERY_SECONDS)
    outcomes, stop = Outcomes(), threading.Event()

    def client(number: int) -> None:
        seed = 10_000 * (number + 1)
        while not stop.is_set():
            seed += 1
            try:
                # In pairs, since the first requests go to the two replicas in turn.
                (ask_streamed if number % 4 < 2 else ask_whole)(cluster, seed, outcomes)
            except httpx.HTTPError as error:
                outcomes.lost.append(repr(error))

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        time.sleep(3)
        victim = cluster.replicas()[0]
        victim.kill()
        killed = time.monotonic()
        cluster.until(lambda: cluster.metrics()["oneseek_ray_replicas"] == 1, RECOVERY_SECONDS)
        cluster.until(
            lambda: cluster.metrics()["oneseek_ray_replicas"] == 2 and len(cluster.replicas()) == 2,
            RECOVERY_SECONDS,
        )
        recovered = time.monotonic() - killed
        time.sleep(2)
        stop.set()
        for one in clients:
            one.result()
    print(
        f"{outcomes.whole} whole, {outcomes.streamed} streamed, {outcomes.broken} broken, {recovered:.1f} s"
    )
    assert outcomes.lost == []
    assert all(events > 0 for events in outcomes.broken)
    assert outcomes.broken, "none was under way"
    assert cluster.metrics()["oneseek_ray_retries_total"] > 0
    assert recovered < RECOVERY_SECONDS
