"""Short waits for tests of slots."""

from __future__ import annotations

import pytest

from server.live.slots import residency as module


@pytest.fixture
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(module, "CLOSE_AFTER", 0.03)
