"""A whole installation with a server over it that may be administered: registry, ledger, roots, keys."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from server.config.settings import Settings
from server.live.catalogue import open_catalogue, provenance
from server.live.follow_options import FollowOptions
from server.metrics.metrics import Metrics
from server.text.tokenizer import Tokenizer
from tests.server.engines.making import ENGINES, EngineLimits
from tests.server.http_server import Made, Serving, one_base_app, served

KEY, ADMIN = "ordinary-key", "admin-key"
SWEDISH = "Kan du hjälpa mig med det här, tack?"
ENGLISH = "Could you help me with this, please?"
SLOTS = 6


@dataclass(frozen=True)
class Place:
    """Where an installation keeps its things."""

    root: Path
    """With `models` and `lora_adapters`."""
    home: Path
    graphs: Path

    @classmethod
    def make(cls, top: Path, base: Path, make_adapter: Callable[..., Path]) -> Place:
        """One with an empty registry, and four folders that wait below lora_adapters."""
        shutil.copytree(base, top / "root" / "models" / "mistral-7b-instruct")
        place = cls(top / "root", top / "home", top / "graphs")
        for number in (1, 2, 3, 4):
            shutil.copytree(make_adapter(f"load-{number}", 40 + number), place.more(number))
        return place

    @property
    def lora_adapters(self) -> Path:
        return self.root / "lora_adapters"

    def more(self, number: int) -> Path:
        """One of the folders that wait, which no server finds by itself."""
        return self.lora_adapters / "later" / f"more-{number}"

    def settings(self, **given: Any) -> Settings:
        values: dict[str, Any] = {
            "home": self.home,
            "port": 0,
            "log_level": "warning",
            "drain_seconds": 2,
            "admin_keys": (ADMIN,),
            "adapter_roots": (str(self.lora_adapters),),
            "follow_registry": 0.0,
        }
        return Settings(**(values | given))


@contextmanager
def administered(
    place: Place, settings: Settings, *, engine: str = "embedded", slots: int = SLOTS
) -> Generator[Serving]:
    """A running server over `place`; its client presents the admin key."""
    catalogue = open_catalogue(settings, place.root)
    tokenizer, metrics, adapters = Tokenizer.load(catalogue.base.path), Metrics(), catalogue.served
    steps = metrics.steps("tiny")
    limits = EngineLimits(max_num_seqs=8, max_queue=64, kv_tokens=32 * 256, max_adapters=slots)
    made = ENGINES[engine](catalogue.base.path, place.graphs, adapters.adapters(), limits, steps)
    options = FollowOptions(
        home=settings.home,
        base=catalogue.base,
        seconds=settings.follow_registry,
        provenance=(lambda: provenance(settings)) if settings.require_provenance else None,
        router=catalogue.make_router,
    )
    app = one_base_app(settings, made, adapters, catalogue.router, tokenizer, "tiny", metrics, follow=options)
    with served(Made(app, made, adapters), settings, {}) as serving:
        serving.http.headers["Authorization"] = f"Bearer {ADMIN}"
        yield serving


@dataclass
class Answers:
    """What clients were told that never stopped asking."""

    seen: list[tuple[int, str, str]] = field(default_factory=list["tuple[int, str, str]"])
    """Status, adapter and digest by the receipt, in the order in which the requests ended."""

    @property
    def statuses(self) -> set[int]:
        return {status for status, _, _ in self.seen}

    @property
    def pairs(self) -> set[tuple[str, str]]:
        return {(name, digest) for _, name, digest in self.seen}


@contextmanager
def asking(serving: Serving, model: str, clients: int = 3) -> Generator[Answers]:
    """Clients that ask `model` again and again, streamed, until the block ends."""
    answers, stop = Answers(), threading.Event()

    def keep_asking() -> None:
        headers = dict(serving.http.headers)
        with httpx.Client(base_url=serving.url, timeout=60, headers=headers) as client:
            while not stop.is_set():
                answer = ask(client, model, stream=True)
                whole = answer.text.rstrip().endswith("data: [DONE]")
                status = answer.status_code if whole or answer.status_code != 200 else 0
                told = answer.headers
                answers.seen.append(
                    (status, told.get("X-OneSeek-Adapter", ""), told.get("X-OneSeek-Adapter-Digest", ""))
                )

    threads = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def ask(client: httpx.Client, model: str, text: str = SWEDISH, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}
    return client.post("/v1/chat/completions", json=body)


def load(client: httpx.Client, name: str, path: Path | str, **fields: Any) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(path), **fields}
    return client.post("/v1/load_lora_adapter", json=body)


def unload(client: httpx.Client, name: str, **fields: Any) -> httpx.Response:
    return client.post("/v1/unload_lora_adapter", json={"lora_name": name, **fields})


def add(client: httpx.Client, path: Path | str, **fields: Any) -> httpx.Response:
    return client.post("/admin/adapters", json={"path": str(path), **fields})


def change(client: httpx.Client, name: str, verb: str, **kwargs: Any) -> httpx.Response:
    return client.post(f"/admin/adapters/{name}/{verb}", **kwargs)


def done(answer: httpx.Response) -> dict[str, Any]:
    """What a change came to that is live."""
    assert answer.status_code == 200, answer.text
    assert answer.json()["live"] is True
    return answer.json()


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer with this status."""
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


def two_versions(client: httpx.Client, place: Place) -> tuple[str, str]:
    """Digests of zero@v1.0, which is active, and zero@v1.1."""
    first = done(add(client, place.more(1), alias="zero", version="v1.0", language="sv"))
    second = done(add(client, place.more(2), alias="zero", version="v1.1", language="sv"))
    assert (first["active"], second["active"]) == (True, False)
    return first["digest"], second["digest"]


def until(holds: Callable[[], bool]) -> None:
    """Wait for it; 20 s at most."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
