"""Three bases of one server on vLLM: two that write, each with an adapter, and one that makes vectors."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from tests.vllm.test_death import ready_address

pytestmark = pytest.mark.slow

ENGLISH = "Who are you, and what can you tell me about the weather this week?"
SWEDISH = "Vem är du, och vad kan du berätta för mig om vädret den här veckan?"
CONFIG = """\
engine: {{kind: vllm, dtype: float32, enforce_eager: true, block_size: 32, num_gpu_blocks_override: 65}}
max_num_seqs: 4
bases:
  south: {{path: {south}, gpu_memory_utilization: 0.3, adapters: [south-en={en}]}}
  north: {{path: {north}, gpu_memory_utilization: 0.3, adapters: [north-sv={sv}]}}
  vectors: {{path: {south}, gpu_memory_utilization: 0.3, engine: {{kind: vllm, runner: pooling}}}}
routing:
  languages: {{en: "south:south-en", sv: "north:north-sv"}}
"""


def other_base(base: Path, folder: Path) -> Path:
    """The same shape with other weights."""
    shutil.copytree(base, folder)
    weights = folder / "model.safetensors"
    tensors = {name: array[::-1].copy() for name, array in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def server(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("bases")
    config, log = folder / "oneseek.yaml", folder / "log"
    north = other_base(tiny_base, folder / "north")
    config.write_text(CONFIG.format(south=tiny_base, north=north, **tiny_adapters))
    command = [sys.executable, "-m", "server", "serve", "--config", str(config), "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--home", str(folder / "home")], stdout=output, stderr=output, start_new_session=True
        )
    try:
        with httpx.Client(base_url=ready_address(process, log, 480), timeout=60) as client:
            yield client
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            for child in family:
                if child.is_running():
                    child.kill()


def ask(client: httpx.Client, text: str, model: str = "oneseek") -> httpx.Response:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}]}
    answer = client.post(
        "/v1/chat/completions", json=body | {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_each_base_answers_with_its_own_adapter(server: httpx.Client) -> None:
    for text, base, adapter in ((ENGLISH, "south", "south-en"), (SWEDISH, "north", "north-sv")):
        answers = {name: ask(server, text, name) for name in ("oneseek", adapter, base)}
        told = answers["oneseek"].headers
        assert (told["x-oneseek-base"], told["x-oneseek-adapter"]) == (base, f"{adapter}@v1")
        texts = {name: one.json()["choices"][0]["message"]["content"] for name, one in answers.items()}
        assert texts["oneseek"] == texts[adapter] != texts[base]
        assert answers[base].headers["x-oneseek-adapter"] == "base"
    assert ask(server, ENGLISH, "south").json()["choices"] != ask(server, ENGLISH, "north").json()["choices"]


def test_answers_are_compared_by_the_vectors_of_the_third(server: httpx.Client) -> None:
    names = ["south", "south-en", "north", "north-sv"]
    asked = {"question": ENGLISH, "models": names, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    answer = server.post("/api/oqt/multi-model-query", json=asked).json()
    consensus, texts = answer["consensus"], [voice["text"] for voice in answer["voices"]]
    comparable = [tuple(pair["voices"]) for pair in consensus["pairs"] if pair["comparable"]]
    assert comparable
    assert (consensus["measure"], consensus["base"]) == ("cosine", "vectors")
    made = server.post("/v1/embeddings", json={"model": "vectors", "input": texts}).json()["data"]
    vectors = np.asarray([one["embedding"] for one in made])
    cosines = {(i, j): max(0.0, float(vectors[i] @ vectors[j])) for i, j in combinations(range(4), 2)}
    for pair in consensus["pairs"]:
        if pair["comparable"]:
            assert pair["agreement"] == pytest.approx(cosines[tuple(pair["voices"])], abs=2e-3)
