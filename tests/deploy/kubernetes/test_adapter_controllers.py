"""The requests of controllers that place LoRA adapters on pods, and what they read in the answers.

AIBrix's ModelAdapter and production-stack's LoraAdapter, each as a few lines that send what it sends and
decide as it decides. The controllers themselves, their pods and their labels are not here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.bases import SHIPPED
from tests.server.server_process import ServerProcess

ADMIN = "operator"
JSON = {"Content-Type": "application/json", "Authorization": f"Bearer {ADMIN}"}
"""Neither sends more headers than these and Go's own."""


@dataclass(frozen=True, slots=True)
class Place:
    http: httpx.Client
    adapters: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with a base and no adapter of its own, and two adapters on a volume."""
    folder = tmp_path_factory.mktemp("controllers")
    base = shutil.copytree(SHIPPED / "base", folder / "models" / "small")
    for name in ("oneseek-mini-en", "oneseek-mini-sv"):
        shutil.copytree(SHIPPED / name, folder / "adapters" / name)
    roots = ("--adapter-roots", str(folder / "adapters"))
    running = ServerProcess(base, folder, "--admin-keys", ADMIN, "--api-keys", "tenant", *roots)
    try:
        with httpx.Client(base_url=running.url(), timeout=60) as http:
            yield Place(http, folder / "adapters")
    finally:
        running.end()


@dataclass(frozen=True, slots=True)
class AIBrix:
    """`loraClient` of AIBrix's ModelAdapter controller, without its runtime sidecar."""

    http: httpx.Client

    def models(self) -> set[str]:
        answer = self.http.get("/v1/models", headers={"Authorization": f"Bearer {ADMIN}"})
        assert answer.status_code == 200, "failed to get models"
        return {model["id"] for model in answer.json()["data"]}

    def load(self, name: str, url: str) -> tuple[bool, bool]:
        """Whether it was loaded, and whether it was there."""
        if name in self.models():
            return False, True
        body = json.dumps({"lora_name": name, "lora_path": url})
        answer = self.http.post("/v1/load_lora_adapter", content=body, headers=JSON)
        assert answer.status_code in (200, 201), f"failed to load LoRA adapter: {answer.text}"
        return True, False

    def unload(self, name: str) -> None:
        body = json.dumps({"lora_name": name})
        answer = self.http.post("/v1/unload_lora_adapter", content=body, headers=JSON)
        assert answer.status_code in (200, 201), answer.text


def test_aibrix_places_an_adapter_and_takes_it_away(place: Place) -> None:
    controller = AIBrix(place.http)
    url = str(place.adapters / "oneseek-mini-sv")
    assert controller.load("customer-a", url) == (True, False)
    assert controller.load("customer-a", url) == (False, True), "it reconciles again and again"
    answer = ask(place, "customer-a")
    assert (answer.status_code, answer.json()["model"]) == (200, "customer-a@v1.0")
    controller.unload("customer-a")
    assert "customer-a" not in controller.models()
    assert ask(place, "customer-a").status_code == 404


def test_a_pod_that_started_again_gets_its_adapters_again(place: Place) -> None:
    """Loaded adapters are gone after a restart; the list says so, and that is what a controller reads."""
    controller = AIBrix(place.http)
    for _ in range(2):
        assert controller.load("customer-b", str(place.adapters / "oneseek-mini-en")) == (True, False)
        controller.unload("customer-b")


@pytest.mark.parametrize(
    "url", ["gcs://bucket/adapters/a", "s3://bucket/adapters/a", "hf://owner/name", "owner/name"]
)
def test_what_aibrix_may_send_beyond_the_roots_is_an_error_that_it_reports(place: Place, url: str) -> None:
    """`huggingface://owner/name` arrives as the last of them."""
    with pytest.raises(AssertionError, match=r"adapter_urls|adapter_roots"):
        AIBrix(place.http).load("customer-c", url)


@dataclass(frozen=True, slots=True)
class ProductionStack:
    """`LoraAdapterReconciler` of vLLM's production-stack, for one pod."""

    http: httpx.Client

    def send(self, method: str, path: str, payload: dict[str, str] | None = None) -> bytes:
        """Raises `AssertionError` where the controller would report an error."""
        content = None if payload is None else json.dumps(payload)
        answer = self.http.request(method, path, content=content, headers=JSON)
        if answer.status_code == 400:
            flat: dict[str, Any] = answer.json()
            if flat.get("type") == "InvalidUserInput" and "has already been loaded" in flat["message"]:
                return answer.content
        assert answer.status_code == 200, f"unexpected status code: {answer.status_code}, {answer.text}"
        return answer.content

    def registrations(self) -> list[tuple[str, str, int]]:
        """Name, path and time of what is loaded: every model that has a parent."""
        models = json.loads(self.send("GET", "/v1/models"))
        assert models["object"] == "list"
        for model in models["data"]:
            kinds = {key: type(model[key]) for key in ("id", "object", "created", "owned_by", "root")}
            assert kinds == {"id": str, "object": str, "created": int, "owned_by": str, "root": str}
            assert model["parent"] is None or isinstance(model["parent"], str)
        return [
            (one["id"], one["root"], one["created"]) for one in models["data"] if one["parent"] is not None
        ]

    def reconcile(self, name: str, path: str) -> bool:
        """One round for a pod that should have the adapter; whether it loaded."""
        if self.registrations():
            return False
        self.send("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
        return True

    def delete(self, name: str) -> None:
        for registered, _, _ in self.registrations():
            if registered == name:
                self.send("POST", "/v1/unload_lora_adapter", {"lora_name": name})


def test_production_stack_places_an_adapter_and_takes_it_away(place: Place) -> None:
    controller, path = ProductionStack(place.http), str(place.adapters / "oneseek-mini-sv")
    assert not controller.registrations(), "a base is no adapter"
    assert controller.reconcile("customer", path)
    assert "customer" in {name for name, _, _ in controller.registrations()}
    assert not controller.reconcile("customer", path), "it reconciles again and again"
    assert ask(place, "customer").status_code == 200
    controller.delete("customer")
    assert not controller.registrations()


def test_a_load_that_production_stack_repeats_is_done_for_it(place: Place) -> None:
    """Two rounds at once: the second is told so in the shape that the controller reads."""
    controller = ProductionStack(place.http)
    payload = {"lora_name": "customer", "lora_path": str(place.adapters / "oneseek-mini-sv")}
    controller.send("POST", "/v1/load_lora_adapter", payload)
    try:
        controller.send("POST", "/v1/load_lora_adapter", payload)
    finally:
        controller.delete("customer")


@pytest.mark.parametrize(("key", "status"), [("tenant", 403), ("nobody", 401)])
def test_a_controller_without_an_admin_key_is_refused(place: Place, key: str, status: int) -> None:
    headers = JSON | {"Authorization": f"Bearer {key}"}
    payload = {"lora_name": "customer", "lora_path": str(place.adapters / "oneseek-mini-sv")}
    answer = place.http.post("/v1/load_lora_adapter", content=json.dumps(payload), headers=headers)
    assert answer.status_code == status


def ask(place: Place, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hej!"}], "max_tokens": 4}
    return place.http.post("/v1/chat/completions", json=body, headers={"Authorization": "Bearer tenant"})
