"""Servers in processes of their own, which signals and attacks need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server.server_process import ServerProcess


@pytest.fixture
def serve(tiny_base: Path, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts a server with one place in its batch."""
    with ExitStack() as stack:

        def start(*arguments: str) -> ServerProcess:
            server = ServerProcess(tiny_base, tmp_path, "--max-num-seqs", "1", *arguments)
            stack.callback(server.end)
            return server

        yield start
