"""One S3 server and one web server for all tests of a session that fetch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.shape_check import ModelShape
from adapters.registry.intake import Base
from tests.adapters.remote.door import Door
from tests.adapters.remote.hosts import WebHost, web_host


@pytest.fixture
def door(tmp_path: Path, shape: ModelShape) -> Door:
    home = tmp_path / "home"
    home.mkdir()
    return Door(home, Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def web() -> Iterator[WebHost]:
    with web_host() as host:
        yield host


@dataclass(frozen=True)
class S3Host:
    """moto's server with one bucket; `AWS_*` name it while a test runs."""

    endpoint: str
    files: Any

    def put(self, path: str, folder: Path) -> str:
        """Keep the files of `folder` under `path` of the bucket; the URL."""
        for file in folder.iterdir():
            self.files.pipe_file(f"bucket/{path}/{file.name}", file.read_bytes())
        return f"s3://bucket/{path}"


@pytest.fixture(scope="session")
def s3_host() -> Iterator[S3Host]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    import s3fs

    files = s3fs.S3FileSystem(key="testing", secret="testing-secret", endpoint_url=endpoint)
    files.mkdir("bucket")
    yield S3Host(endpoint, files)
    server.stop()


@pytest.fixture
def s3(s3_host: S3Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> S3Host:
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_host.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    return s3_host
