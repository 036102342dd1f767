"""Folders for what is not finished: apart from each other, and gone in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.files.atomic import discard_unfinished
from adapters.files.scratch import scratch_folder


def test_each_block_has_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with scratch_folder(place) as first, scratch_folder(place) as second:
        assert first != second
        (first / "file").write_bytes(b"x")
        assert not list(second.iterdir())
    assert not place.exists()
    with pytest.raises(FileNotFoundError), scratch_folder(place) as third:
        (third / "missing" / "deep").mkdir()
    assert not place.exists()


def test_what_nobody_holds_is_cleared_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (tmp_path / "left.lock").touch()
    with scratch_folder(tmp_path) as used:
        assert not left.exists()
        with scratch_folder(tmp_path):
            assert used.is_dir()


def test_a_process_that_is_ended_discards_it(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "place") as folder:
        discard_unfinished()
        assert not folder.exists()
