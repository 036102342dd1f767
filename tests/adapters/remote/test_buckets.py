"""Adapters in buckets, by moto's S3 server, and in repositories, by a server that answers as Hugging Face."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.digest import adapter_digest
from adapters.remote import stores
from adapters.remote.fetch import FetchLimits
from tests.adapters.remote.conftest import S3Host
from tests.adapters.remote.door import SECRET, Door
from tests.adapters.remote.hosts import WebHost, send

Make = Callable[..., Path]


def test_from_s3(door: Door, s3: S3Host, make_adapter: Make) -> None:
    folder = make_adapter("språk/zero-v1.1-SV", manifest={"about": {"by": "me"}})
    url = s3.put("språk/zero-v1.1-SV", folder)
    added = door.add(url, digest=adapter_digest(folder))
    assert (added.adapter.full_name, added.adapter.language) == ("zero-sv@v1.1", "sv")
    [entry] = door.ledger.entries()
    assert entry.record.details["url"] == url
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert door.refused(url, limits=FetchLimits(max_bytes=size - 1)).failure == "too_large"


def test_what_lies_in_a_bucket_instead(door: Door, s3: S3Host, make_adapter: Make, tmp_path: Path) -> None:
    s3.put("out/checkpoint-20", make_adapter("out"))
    found = door.refused("s3://bucket/out")
    assert found.failure == "not_adapter"
    assert "s3://bucket/out/checkpoint-20" in str(found)
    pickle = tmp_path / "pickle"
    pickle.mkdir()
    (pickle / "adapter_model.bin").write_bytes(b"pickle")
    s3.put("old", pickle)
    assert "oneseek adapters import FOLDER/adapter_model.bin" in str(door.refused("s3://bucket/old"))
    assert door.refused("s3://bucket/nothing").failure == "missing"
    assert door.refused("s3://no-such-bucket/a").failure == "missing"


def test_credentials_are_asked_for(door: Door, s3: S3Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = door.refused("s3://bucket/a")
    assert found.failure == "forbidden"
    assert "AWS_ACCESS_KEY_ID" in str(found)
    assert "testing-secret" not in str(found)


def test_an_endpoint_that_is_gone(door: Door, s3: S3Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert door.refused("s3://bucket/a").failure == "unreachable"


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(web: WebHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WebHost:
    """A host that has one repository, org/zero-v1.0, as Hugging Face's API shows it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", web.url)
    files = web.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", f"hf_{SECRET}")

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        body: Any = None
        if path in (
            f"/api/models/org/zero-v1.0{end}" for end in ("", "/revision/main", f"/revision/{COMMIT}")
        ):
            body = {"id": "org/zero-v1.0", "sha": COMMIT, "siblings": []}
        elif path.startswith(f"/api/models/org/zero-v1.0/tree/{COMMIT}"):
            body = [{"type": "file", "path": "adapter_model.bin", "size": 6, "oid": "0" * 40}]
        if body is None:
            send(handler, b"", 404, X_Error_Code="EntryNotFound" if "/resolve/" in path else "RepoNotFound")
        else:
            send(handler, json.dumps(body).encode(), Content_Type="application/json")

    web.answers["/api/"] = answer
    return web


def test_from_hugging_face(door: Door, hub: WebHost, make_adapter: Make) -> None:
    hub.put(f"org/zero-v1.0/resolve/{COMMIT}", make_adapter("zero-v1.0"))
    for url in ("hf://org/zero-v1.0", f"hf://org/zero-v1.0@{COMMIT}"):
        added = door.add(url)
        assert added.adapter.full_name == "zero@v1.0"
    [entry] = door.ledger.entries()
    assert entry.record.details["url"] == f"hf://org/zero-v1.0@{COMMIT}"
    told = {headers.get("authorization") for headers in hub.headers}
    assert told == {f"Bearer hf_{SECRET}"}, "nothing is asked for but the repository"


def test_what_lies_in_a_repository_instead(door: Door, hub: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "oneseek adapters import FOLDER/adapter_model.bin" in str(door.refused("hf://org/zero-v1.0"))
    found = door.refused("hf://org/private")
    assert found.failure == "missing"
    assert "HF_TOKEN" in str(found)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=0" in str(door.refused("hf://org/zero-v1.0"))


def test_no_library_logs_a_secret(
    door: Door, hub: WebHost, s3: S3Host, make_adapter: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a repository's host redirects to a signed address, which clients log."""
    folder = make_adapter("zero-v1.0")
    target = hub.put("signed", folder)

    def moved(handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.rpartition("/")[2]
        send(handler, b"", 302, Location=f"{target}/{name}?X-Amz-Signature={SECRET}")

    hub.answers["/org/"] = moved
    caplog.set_level(logging.DEBUG)
    door.add("hf://org/zero-v1.0")
    door.add(f"{target}?sig={SECRET}", alias="web")
    door.refused(f"{hub.url}/none?sig={SECRET}")
    door.add(s3.put("zero-v1.0", folder), alias="bucket")
    assert SECRET not in caplog.text
    assert "AWS4-HMAC" not in caplog.text
    assert any(SECRET in path for path in hub.asked)


def test_from_google_by_fsspec_alone(door: Door, make_adapter: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfs is not among the packages of the tests: only what is asked of fsspec is tried."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = "gs"

    monkeypatch.setattr(stores, "_NEEDED", {"gs": ("fsspec",)})
    monkeypatch.setitem(vars(import_module("fsspec.registry"))["_registry"], "gs", Bucket)
    files: Any = Bucket()
    for file in make_adapter("zero-v1.0").iterdir():
        files.pipe_file(f"/bucket/ours/zero-v1.0/{file.name}", file.read_bytes())
    assert door.add("gs://bucket/ours/zero-v1.0").adapter.full_name == "zero@v1.0"
    assert "gs://bucket/ours/zero-v1.0" in str(door.refused("gs://bucket/ours"))
    files.store.clear()
