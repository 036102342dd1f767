"""A disk that is full, for a moment and for this process alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

ROOM = 64 * 1024
"""Bytes that any file may have while the disk is full."""


@contextmanager
def full(room: int = ROOM) -> Generator[None]:
    """No file of this process may grow past `room` bytes, for a moment."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
