"""Two replicas on a real Ray cluster: where requests go, what is kept apart, and what a death costs."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ray.running import ADMIN, Cluster, given

FIRST, SECOND = "first-key", "second-key"
WORDS = [
    "river",
    "stone",
    "lamp",
    "winter",
    "garden",
    "letter",
    "bridge",
    "music",
    "forest",
    "copper",
    "window",
    "harbour",
]


def ask(cluster: Cluster, key: str = FIRST, **body: Any) -> httpx.Response:
    whole = {"model": "base", "max_tokens": 8, "temperature": 0, "ignore_eos": True} | body
    path = "/v1/chat/completions" if "messages" in whole else "/v1/completions"
    return cluster.client.post(path, json=whole, headers={"Authorization": f"Bearer {key}"})


def say(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def test_an_answer_is_whole_and_has_its_receipt(cluster: Cluster) -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": say(1)}],
        "model": "sv",
        "receipt": True,
    }
    reply = ask(cluster, **body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-oneseek-adapter"].startswith("sv@")
    assert len(reply.headers.get_list("x-request-id")) == 1
    answer = reply.json()
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["receipt"]["adapter"] == reply.headers["x-oneseek-adapter"]
    assert ask(cluster, **body).json()["choices"] == answer["choices"]


def test_choices_of_one_request_all_come(cluster: Cluster) -> None:
    reply = ask(cluster, prompt=say(3), n=6, temperature=1.0, seed=7)
    assert reply.status_code == 200, reply.text
    assert len({choice["text"] for choice in reply.json()["choices"]}) == 6


def test_adapters_answer_differently_on_every_replica(cluster: Cluster) -> None:
    def text(model: str) -> str:
        return ask(cluster, model=model, prompt=say(2), max_tokens=24).json()["choices"][0]["text"]

    with ThreadPoolExecutor(12) as pool:
        found = {model: set(pool.map(text, [model] * 12)) for model in ("base", "en", "sv")}
    assert all(len(texts) == 1 for texts in found.values()), found
    assert len(set.union(*found.values())) == 3


def test_a_refusal_comes_from_the_ingress_in_openais_shape(cluster: Cluster) -> None:
    reply = ask(cluster, model="nobody", prompt="hi")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert ask(cluster, key="wrong", prompt="hi").status_code == 401
    assert ask(cluster, prompt="hi", max_tokens=10**6).status_code == 400


def test_a_conversation_stays_with_its_replica_and_the_load_is_spread(cluster: Cluster) -> None:
    before = cluster.metrics()
    conversations, turns = 12, 4

    def converse(seed: int) -> None:
        said = [{"role": "user", "content": say(100 + seed)}]
        for turn in range(turns):
            reply = ask(cluster, messages=said, model=("en", "sv")[seed % 2])
            assert reply.status_code == 200, reply.text
            said.append({"role": "assistant", "content": reply.json()["choices"][0]["message"]["content"]})
            said.append({"role": "user", "content": say(1000 * seed + turn, 12)})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(converse, range(conversations)))
    after = cluster.metrics()

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    known = grew("oneseek_ray_known_prefixes_total")
    assert known >= conversations * (turns - 1)
    assert grew('oneseek_ray_placements_total{reason="prefix"}') >= 0.9 * known
    counts = [count - given(before).get(name, 0.0) for name, count in given(after).items()]
    assert len(counts) == 2
    assert min(counts) >= 0.25 * sum(counts), counts


def test_more_adapters_than_a_replica_holds_are_spread_over_both(cluster: Cluster, random_base: Path) -> None:
    for name in ("cold-1", "cold-2"):
        body = {"lora_name": name, "lora_path": f"{random_base}-{name}"}
        reply = cluster.client.post(
            "/v1/load_lora_adapter", json=body, headers={"Authorization": f"Bearer {ADMIN}"}
        )
        assert reply.status_code == 200, reply.text
    names = ("en", "sv", "cold-1", "cold-2")  # and each replica has three slots
    assert [ask(cluster, model=name, prompt=say(5)).status_code for name in names * 2] == [200] * 8
    for name in ("cold-1", "cold-2"):
        reply = cluster.client.post(
            "/v1/unload_lora_adapter", json={"lora_name": name}, headers={"Authorization": f"Bearer {ADMIN}"}
        )
        assert reply.status_code == 200, reply.text
        assert ask(cluster, model=name, prompt=say(5)).status_code == 404


def test_a_promotion_reaches_every_replica_and_conversations_keep_their_version(
    cluster: Cluster, random_base: Path
) -> None:
    for number in (1, 2):
        body = {"path": f"{random_base}-zero-{number}", "alias": "zero", "version": f"v1.{number}"}
        cluster.admin("/admin/adapters", body)
    cluster.admin("/admin/adapters/zero/canary", {"shares": {"v1.1": 50, "v1.2": 50}})

    def version(seed: int, turns: int) -> str:
        said: list[dict[str, str]] = [{"role": "user", "content": say(300 + seed)}]
        for turn in range(turns - 1):
            said += [{"role": "assistant", "content": "so"}, {"role": "user", "content": say(turn, 5)}]
        reply = ask(cluster, messages=said, model="zero", max_tokens=2)
        assert reply.status_code == 200, reply.text
        return reply.headers["x-oneseek-adapter"]

    first = [version(seed, 1) for seed in range(10)]
    assert set(first) == {"zero@v1.1", "zero@v1.2"}
    assert [version(seed, 2) for seed in range(10)] == first
    before, began = given(cluster.metrics()), time.monotonic()
    cluster.admin("/admin/adapters/zero@v1.2/promote")
    assert version(40, 1) == "zero@v1.2"
    assert time.monotonic() - began < 5
    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(version, range(41, 61), [1] * 20)) == {"zero@v1.2"}
    assert all(count > before[name] for name, count in given(cluster.metrics()).items())


def test_a_full_queue_is_shared_between_keys_in_one_place(cluster: Cluster) -> None:
    def one(key: str, seed: int) -> httpx.Response:
        return ask(cluster, key, prompt=say(seed, 5), max_tokens=60)

    def many(key: str, count: int) -> list[httpx.Response]:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(partial(one, key), range(count)))

    with ThreadPoolExecutor(2) as pool:
        flood = pool.submit(many, FIRST, 60)  # 2 x 8 rows and a queue of 24 are 40 places
        time.sleep(0.3)
        few = pool.submit(many, SECOND, 4)
        statuses = [reply.status_code for reply in flood.result()]
        assert [reply.status_code for reply in few.result()] == [200] * 4
    assert 429 in statuses
    assert statuses.count(200) >= 36


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_replica(cluster: Cluster, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{cluster.url}/v1/completions",
            json={"model": "base", "prompt": "hi", "max_tokens": 2000, "ignore_eos": True},
            headers={"Authorization": f"Bearer {FIRST}"},
            timeout=0.5,
        )
    names: Sequence[str] = ('oneseek_requests_running{adapter="base",base="random"}',)
    cluster.until(lambda: all(cluster.metrics()[name] == 0 for name in names), 5)
