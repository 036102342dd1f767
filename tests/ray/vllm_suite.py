"""Two replicas of the real vLLM on a Ray cluster, on the CPU: `make test-ray-vllm`.

What the ingress does with any replica is the matter of `test_cluster`; this is what vLLM could do otherwise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ray.conftest import SETTINGS
from tests.ray.running import ADMIN, Cluster, given
from tests.ray.test_cluster import FIRST, ask, say
from tests.ray.test_death import Outcomes, ask_streamed, ask_whole

ENGINE = """\
engine:
  kind: vllm
  dtype: float32
  enforce_eager: true
  block_size: 32
  num_gpu_blocks_override: 256
"""
START_SECONDS = 540.0
"""For vLLM to start twice at once, on two cores with other work too."""
CLIENTS = 8

pytestmark = pytest.mark.timeout(2 * START_SECONDS)


@pytest.fixture(scope="module")
def cluster(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("vllm")
    settings = SETTINGS.format(base=random_base, home=folder / "home", roots=random_base.parent, admin=ADMIN)
    running = Cluster(folder, settings.replace("threads: 1\n", ENGINE))
    try:
        began = time.monotonic()
        running.wait(START_SECONDS)
        running.until(lambda: running.metrics()["oneseek_ray_replicas"] == 2, START_SECONDS)
        print(f"two replicas after {time.monotonic() - began:.0f} s")
        yield running
    finally:
        running.end()


def text(cluster: Cluster, model: str) -> str:
    reply = ask(cluster, model=model, prompt=say(2), max_tokens=16)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["text"]


def test_adapters_answer_on_both_replicas_and_each_in_its_own_voice(cluster: Cluster) -> None:
    version = cluster.client.get("/version", headers={"Authorization": f"Bearer {FIRST}"})
    assert version.json()["engine"] == "vllm"
    before = given(cluster.metrics())
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = {
            model: set(pool.map(text, [cluster] * CLIENTS, [model] * CLIENTS))
            for model in ("base", "en", "sv")
        }
    assert all(len(texts) == 1 for texts in found.values()), found
    assert len(set.union(*found.values())) == 3
    counts = [count - before.get(name, 0) for name, count in given(cluster.metrics()).items()]
    assert len(counts) == 2
    assert min(counts) >= CLIENTS / 2, counts


def test_a_stream_is_the_whole_answer_in_parts(cluster: Cluster) -> None:
    body: dict[str, Any] = {"model": "sv", "prompt": say(2), "max_tokens": 16, "temperature": 0}
    body |= {"ignore_eos": True, "stream": True, "receipt": True}
    events: list[dict[str, Any]] = []
    headers = {"Authorization": f"Bearer {FIRST}"}
    with cluster.client.stream("POST", "/v1/completions", json=body, headers=headers) as reply:
        assert reply.headers["x-oneseek-adapter"].startswith("sv@")
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    events = [json.loads(line) for line in lines]
    parts = [choice["text"] for event in events for choice in event["choices"]]
    assert len(parts) > 1
    assert "".join(parts) == text(cluster, "sv")
    (receipt,) = [event["receipt"] for event in events if "receipt" in event]
    assert receipt["first_token_seconds"] > 0


def test_a_conversation_stays_where_its_history_is_cached(cluster: Cluster) -> None:
    before, conversations = cluster.metrics(), 4
    cached: list[list[int]] = []
    for seed in range(conversations):
        said = [{"role": "user", "content": say(100 + seed)}]
        cached.append([])
        for _ in range(2):
            reply = ask(cluster, messages=said, model=("en", "sv")[seed % 2])
            assert reply.status_code == 200, reply.text
            answer = reply.json()
            said.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
            said.append({"role": "user", "content": "and then"})
            cached[-1].append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    after = cluster.metrics()
    name = 'oneseek_ray_placements_total{reason="prefix"}'
    assert after[name] - before[name] >= conversations
    assert all(second >= 32 > first for first, second in cached), cached


def test_an_adapter_is_loaded_and_unloaded_on_both(cluster: Cluster, random_base: Path) -> None:
    def change(verb: str, **more: str) -> int:
        body = {"lora_name": "cold-1"} | more
        headers = {"Authorization": f"Bearer {ADMIN}"}
        return cluster.client.post(f"/v1/{verb}_lora_adapter", json=body, headers=headers).status_code

    assert change("load", lora_path=f"{random_base}-cold-1") == 200
    with ThreadPoolExecutor(CLIENTS) as pool:
        found = set(pool.map(text, [cluster] * CLIENTS, ["cold-1"] * CLIENTS))
    assert len(found) == 1
    assert found != {text(cluster, "base")}
    assert change("unload") == 200
    assert ask(cluster, model="cold-1", prompt="hi").status_code == 404


@pytest.mark.parametrize("part", ["core", "replica"])
def test_a_death_costs_nobody_who_has_nothing_yet_and_leaves_no_process(
    cluster: Cluster, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.until(lambda: cluster.metrics()["oneseek_ray_replicas"] == 2, START_SECONDS)
    monkeypatch.setattr("tests.ray.test_death.TOKENS", 200)  # so that all are under way at once
    outcomes, retried = Outcomes(), cluster.metrics()["oneseek_ray_retries_total"]
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking: list[Future[None]] = [
            pool.submit((ask_streamed, ask_whole)[number // 2 % 2], cluster, 10_000 + number, outcomes)
            for number in range(CLIENTS)
        ]
        name = 'oneseek_requests_running{adapter="base",base="random"}'
        # More than one replica has of them, so that both are busy.
        cluster.until(lambda: cluster.metrics()[name] > CLIENTS / 2, 60)
        victim = cluster.replicas()[0]
        family = victim.children(recursive=True)
        cores = [one for one in family if "EngineCore" in one.name()]
        assert cores
        (cores[0] if part == "core" else victim).kill()
        killed = time.monotonic()
        for one in asking:
            one.result()
    assert outcomes.lost == []
    assert len(outcomes.broken) + outcomes.streamed == outcomes.whole == CLIENTS // 2
    assert cluster.metrics()["oneseek_ray_retries_total"] > retried
    assert psutil.wait_procs([victim, *family], 60)[1] == [], "what vLLM started has to end with it"
    cluster.until(lambda: cluster.metrics()["oneseek_ray_replicas"] == 1, 60)
    cluster.until(lambda: cluster.metrics()["oneseek_ray_replicas"] == 2, START_SECONDS)
    print(
        f"{part}: {len(outcomes.broken)} broken, two replicas again after {time.monotonic() - killed:.0f} s"
    )
    assert text(cluster, "en") != text(cluster, "sv")
