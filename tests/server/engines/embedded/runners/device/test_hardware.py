"""What the system tells of graphics cards, and what it does not is left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.engines.embedded.runners.device import hardware
from server.engines.embedded.runners.device.hardware import Card, cards


def put(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def test_cards_are_found_with_the_memory_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "card0" / "device", vendor="0x1002", device="0x744c", mem_info_vram_total="25753026560")
    put(tmp_path / "card1" / "device", vendor="0x8086", device="0x56a0")
    put(tmp_path / "card2" / "device", vendor="0xbeef", device="0x0001", mem_info_vram_total="much")
    put(tmp_path / "card0-HDMI-A-1" / "device", vendor="0x1002", device="0x744c")
    put(tmp_path / "card3")
    monkeypatch.setattr(hardware, "CARDS", tmp_path)
    assert cards() == (
        Card("AMD 0x744c", 25753026560),
        Card("Intel 0x56a0", None),
        Card("0xbeef 0x0001", None),
    )


def test_a_machine_that_tells_nothing_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CARDS", tmp_path / "none")
    assert cards() == ()
