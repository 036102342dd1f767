"""Two tiny bases of different shapes and tokenizers in one server, each with an adapter."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from bench.random_model import DecoderShape, write_adapter, write_model
from server.asgi.compose import Narrator, compose
from server.config.bases import BaseOptions
from server.config.settings import RoutingOptions, Settings
from server.serving.service import BaseService
from tests.server.http_server import Made, Serving, served

NORTH, SOUTH = "north", "south"
SV, EN = "north-sv", "south-en"
SHAPES = {
    NORTH: DecoderShape(32, 2, 2, 1, 16, 64, 300, 256),
    SOUTH: DecoderShape(48, 2, 3, 1, 16, 64, 400, 256),
}
ENGLISH = "Who are you, and what can you tell me about the weather this week?"
SWEDISH = "Vem är du, och vad kan du berätta för mig om vädret den här veckan?"
ADMIN = "admin-key"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class TwoBases:
    """The folders."""

    root: Path
    bases: dict[str, Path] = field(default_factory=dict[str, Path])

    @classmethod
    def make(cls, root: Path) -> TwoBases:
        """Write both, and an adapter for each."""
        made = cls(root, {name: root / "models" / name for name in SHAPES})
        for seed, (name, folder) in enumerate(made.bases.items()):
            write_model(folder, SHAPES[name], seed)
        made.adapter(NORTH, root / "adapters" / SV, 1)
        made.adapter(SOUTH, root / "adapters" / EN, 2)
        return made

    def adapter(self, base: str, folder: Path, seed: int = 0) -> Path:
        """A random adapter for `base`."""
        write_adapter(folder, SHAPES[base], 4, ("q_proj", "v_proj"), seed)
        return folder

    def settings(self, home: Path, **given: Any) -> Settings:
        """English goes to the south and Swedish to the north; the south is the default."""
        bases = {
            SOUTH: BaseOptions(path=self.bases[SOUTH], adapters=(f"{EN}={self.root / 'adapters' / EN}",)),
            NORTH: BaseOptions(path=self.bases[NORTH], adapters=(f"{SV}={self.root / 'adapters' / SV}",)),
        }
        values: dict[str, Any] = {
            "bases": bases,
            "home": home,
            "port": 0,
            "threads": 1,
            "max_num_seqs": 4,
            "kv_cache_memory": 4 * 1024 * 1024,
            "log_level": "warning",
            "drain_seconds": 2,
            "admin_keys": (ADMIN,),
            "adapter_roots": (str(self.root / "adapters"),),
            "follow_registry": 0.0,
            "routing": RoutingOptions(languages={"en": f"{SOUTH}:{EN}", "sv": f"{NORTH}:{SV}"}),
        }
        return Settings(**(values | given))


@dataclass(frozen=True)
class TwoServing:
    """A running server and its services."""

    serving: Serving
    services: Sequence[BaseService]

    def ask(self, text: str, **given: Any) -> Any:
        """A chat's answer as httpx gives it; `headers` go with it."""
        headers = given.pop("headers", {})
        body: dict[str, Any] = {"model": "oneseek", "messages": [{"role": "user", "content": text}]}
        body |= {"max_tokens": 4, "temperature": 0}
        return self.serving.http.post(CHAT, json=body | given, headers=headers)


@contextmanager
def two_bases_served(settings: Settings, root: Path) -> Generator[TwoServing]:
    """The whole application over what the settings name, behind real uvicorn."""
    app, services = compose(settings, Narrator(StringIO()), {}, root)
    first = services[0].runtime
    with served(Made(app, first.engine, first.served), settings, {}) as serving:
        serving.http.headers["Authorization"] = f"Bearer {ADMIN}"
        yield TwoServing(serving, services)
