"""A full disk is one error that names a place, whichever library met it, and nothing half-made stays."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters.distillation.journal import open_journal
from adapters.evaluation.endpoint import EndpointAnswer
from adapters.files.atomic import staged_file, staged_folder, write_file
from adapters.files.full import FULL
from adapters.files.jsonfile import write_object
from tests.adapters.files.disk import ROOM, full

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")


def by_bytes(folder: Path) -> None:
    (folder / "file").write_bytes(bytes(2 * ROOM))


def by_safetensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2 * ROOM, np.uint8)}, folder / "file")


def by_torch(folder: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(2 * ROOM)}, folder / "file")


@pytest.mark.parametrize("write", [by_bytes, by_safetensors, by_torch])
def test_every_librarys_full_disk_names_the_place(tmp_path: Path, write: Callable[[Path], None]) -> None:
    target = tmp_path / "made" / "target"
    with full(), pytest.raises(OSError, match=str(tmp_path)) as caught, staged_folder(target) as folder:
        write(folder)
    assert caught.value.errno in FULL
    assert caught.value.filename is not None
    assert not list(tmp_path.iterdir())


def test_a_file_keeps_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_object(path, {"a": 1})
    for again in (
        lambda: write_object(path, {"a": "x" * 2 * ROOM}),
        lambda: write_file(path, bytes(2 * ROOM)),
    ):
        with full(), pytest.raises(OSError, match="too large") as caught:
            again()
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="refused") as caught, staged_file(tmp_path / "file"):
        raise OSError(errno.ECONNREFUSED, "refused")
    assert caught.value.filename is None
    with pytest.raises(RuntimeError), staged_file(tmp_path / "file"):
        raise RuntimeError("something else")


def test_a_journal_of_answers_keeps_what_it_had_and_goes_on(tmp_path: Path) -> None:
    asked = {"teacher": "t"}
    short, long = (EndpointAnswer(text, True, "m") for text in ("x", "x" * 2 * ROOM))
    with open_journal(tmp_path, asked) as journal:
        journal.add("first", short)
        whole = (tmp_path / "answers.jsonl").read_bytes()
        with full(), pytest.raises(OSError, match="too large") as caught:
            journal.add("second", long)
        assert caught.value.filename == str(tmp_path / "answers.jsonl")
        assert journal.get("second") is None
        assert (tmp_path / "answers.jsonl").read_bytes() == whole
        journal.add("third", short)
    with open_journal(tmp_path, asked) as journal:
        assert len(journal) == 2


def test_a_journal_that_cannot_begin_leaves_nothing_that_is_in_the_way(tmp_path: Path) -> None:
    with full(10), pytest.raises(OSError, match="too large"), open_journal(tmp_path, {"teacher": "t"}):
        pass
    assert (tmp_path / "answers.jsonl").read_bytes() == b""
    with open_journal(tmp_path, {"teacher": "another"}) as journal:
        assert not len(journal)
