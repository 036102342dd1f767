"""Adapters that the settings name by URL: fetched at the first start, and never asked for again."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterError
from adapters.lora.digest import adapter_digest
from adapters.remote.errors import FetchError
from server.asgi.compose import Narrator
from server.config.settings import Settings
from server.live.catalogue import open_base, open_catalogue, open_registry
from server.live.configured import fetch_configured, unfetched
from tests.adapters.remote.hosts import web_host
from tests.server.live.adapters.test_malformed import tree

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a base."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    shutil.copytree(tiny_base, tmp_path / "root" / "models" / "mistral-7b-instruct")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


def start(settings: Settings) -> list[str]:
    """What a start does before it opens the engine; the names that are served."""
    if missing := unfetched(settings):
        narrator = Narrator(io.StringIO())
        registry, base = open_registry(settings), open_base(settings)
        fetch_configured(settings, missing, registry, base, narrator, narrator.progress)
    return [adapter.full_name for adapter in open_catalogue(settings).served.adapters()]


def test_a_pinned_url_is_fetched_once(tmp_path: Path, make_adapter: Make) -> None:
    home, folder = tmp_path / "home", make_adapter("configured", 81)
    with web_host() as web:
        url, digest = web.put("deep/far-v1.0", folder), adapter_digest(folder)
        settings = Settings(
            home=home,
            adapters=(f"{url}#{digest}", f"other@v2={url}#{digest}"),
        )
        assert [note for note in open_catalogue(settings).notes if "oneseek serve" in note]
        assert not web.asked, "only a start fetches"
        assert start(settings) == ["far@v1.0", "other@v2"]
        asked = len(web.asked)
        web.contents.clear()
        assert start(settings) == ["far@v1.0", "other@v2"]
        assert len(web.asked) == asked
    assert start(settings) == ["far@v1.0", "other@v2"], "without the network"
    open_registry(settings).retire("other@v2")
    assert start(settings) == ["far@v1.0"]
    assert [note for note in open_catalogue(settings).notes if "adapters promote other@v2" in note]


def test_a_later_pin_waits_for_its_promotion(tmp_path: Path, make_adapter: Make) -> None:
    first, second = make_adapter("first", 82), make_adapter("second", 83)
    with web_host() as web:
        for folder in (first, second):
            url = web.put(f"ours/{folder.name}", folder)
            settings = Settings(home=tmp_path / "home", adapters=(f"mine={url}#{adapter_digest(folder)}",))
            start(settings)
    served = open_catalogue(settings).served
    assert [adapter.version for adapter in served.versions("mine")] == ["v1.0", "v1.1"]
    assert served.active("mine").digest == adapter_digest(first)


@pytest.mark.parametrize("wrong", ["gone", "changed", "another base"])
def test_what_cannot_be_had_stops_the_start(tmp_path: Path, make_adapter: Make, wrong: str) -> None:
    folder = shutil.copytree(make_adapter("stops", 84), tmp_path / "far-v1.0")
    digest = adapter_digest(folder)
    if wrong == "another base":
        (folder / "oneseek.json").write_text(f'{{"base_digest": "sha256:{"1" * 64}"}}', encoding="utf-8")
    with web_host() as web:
        url = web.put("far-v1.0", folder)
        if wrong == "gone":
            web.contents.clear()
        pin = "sha256:" + "0" * 64 if wrong == "changed" else digest
        settings = Settings(home=tmp_path / "home", adapters=(f"{url}#{pin}",))
        with pytest.raises((FetchError, AdapterError)) as refused:
            start(settings)
    assert url in str(refused.value)
    assert not [
        name for name in tree(settings.home / "registry", settings.home / "fetch") if ".lock" not in name
    ]
