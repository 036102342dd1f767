"""`oneseek serve` with the arguments that KServe writes into a container, started for real.

KServe itself, its gateway and its storage initialiser are not here: /mnt/models is a folder of the test.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest

from adapters.bases import SHIPPED
from tests.deploy.kubernetes.ports import free_port
from tests.server.server_process import heed_interrupts

NAME = "assistant"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the storage initialiser leaves in /mnt/models, and adapters beside it."""
    folder = tmp_path_factory.mktemp("mnt")
    shutil.copytree(SHIPPED / "base", folder / "models")
    for name in ("en", "sv"):
        shutil.copytree(SHIPPED / f"oneseek-mini-{name}", folder / "lora" / name)
    return folder


@contextmanager
def serving(port: int, arguments: Sequence[str], folder: Path) -> Generator[httpx.Client]:
    """A container's process, once the probe of KServe's templates is answered."""
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "server", "serve", *arguments, "--home", str(folder / "home")]
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=heed_interrupts)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            end = monotonic() + 60
            while monotonic() < end and process.poll() is None:
                with suppress(httpx.TransportError):
                    if http.get("/health").status_code == 200:
                        break
                sleep(0.05)
            else:
                raise AssertionError((folder / "log").read_text())
            yield http
    finally:
        process.kill()
        process.wait()


def ask(http: httpx.Client, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hej!"}], "max_tokens": 4}
    return http.post("/v1/chat/completions", json=body)


def test_a_serving_runtime_of_hugging_face_starts_it(models: Path, tmp_path: Path) -> None:
    """The runtime's own arguments, then those of an InferenceService."""
    port = free_port()
    runtime = [f"--model_name={NAME}", f"--model_dir={models / 'models'}", f"--http_port={port}"]
    service = ["--backend=huggingface", "--max_length=512", "--disable_log_requests"]
    with serving(port, [*runtime, *service], tmp_path) as http:
        listed = {model["id"]: model["max_model_len"] for model in http.get("/v1/models").json()["data"]}
        assert listed[NAME] == 512
        answer = ask(http, NAME)
        assert (answer.status_code, answer.json()["model"]) == (200, NAME)


def test_an_llm_inference_service_with_adapters_starts_it(models: Path, tmp_path: Path) -> None:
    """The template's arguments, with those that the controller puts in front for `model.lora`."""
    port = free_port()
    modules = [json.dumps({"name": name, "path": str(models / "lora" / name)}) for name in ("en", "sv")]
    lora = ["--enable-lora", "--max-lora-rank=64", "--max-loras=2", "--max-cpu-loras=4", "--lora-modules"]
    quoted = [f"'{module}'" for module in modules]
    template = ["--served-model-name", NAME, f"publishers/team/models/{NAME}", "--port", str(port)]
    arguments = [str(models / "models"), *lora, *quoted, *template]
    with serving(port, arguments, tmp_path) as http:
        names = {model["id"] for model in http.get("/v1/models").json()["data"]}
        assert {NAME, f"publishers/team/models/{NAME}", "en", "sv"} <= names
        assert {ask(http, name).status_code for name in (NAME, "en", "sv")} == {200}
