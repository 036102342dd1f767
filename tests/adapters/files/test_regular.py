"""Only regular files are opened, and an open never waits."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from adapters.errors import FileRefusedError
from adapters.files.jsonfile import read_object
from adapters.files.regular import copy_regular, open_regular, read_regular

special = pytest.mark.skipif(sys.platform == "win32", reason="pipes, sockets and devices of POSIX")


def test_a_regular_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_regular(path, 4) == b"0123"
    with open_regular(path) as file:
        assert file.read() == b"0123456789"
    copy_regular(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"0123456789"
    (tmp_path / "link").symlink_to(path)
    assert read_regular(tmp_path / "link", 99) == b"0123456789"


@special
@pytest.mark.timeout(20)
def test_anything_else_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("link").symlink_to("pipe")
    Path("zeros").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    for name in ("pipe", "folder", "loop", "link", "zeros", "socket", "missing"):
        with pytest.raises(OSError, match=name) as opened:
            open_regular(Path(name))
        assert opened.value.errno in (errno.EINVAL, errno.ELOOP, errno.ENOENT)
        with pytest.raises(OSError, match=name) as copied:
            copy_regular(Path(name), tmp_path / "copy")
        assert copied.value.errno == opened.value.errno
        assert not (tmp_path / "copy").exists()
        with pytest.raises(FileRefusedError) as read:
            read_object(Path(name), 100, FileRefusedError)
        assert read.value.path == Path(name)
        assert isinstance(read.value.__cause__, OSError)


@pytest.mark.parametrize("text", [r'{"a": "\ud800"}', r'{"a": "\udc00\ud800"}', r'{"\ud800x": 1}'])
def test_half_a_character_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text, "ascii")
    with pytest.raises(FileRefusedError, match=r"\\ud800"):
        read_object(tmp_path / "file.json", 100, FileRefusedError)


@pytest.mark.parametrize(
    ("text", "value"),
    [(r'"\ud83d\ude00"', "😀"), (r'"\\ud800"', r"\ud800"), (r'"\ud83d\ude00\ud83d\ude00"', "😀😀")],
)
def test_whole_characters_are_not(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "file.json").write_text(f'{{"a": {text}}}', "ascii")
    assert read_object(tmp_path / "file.json", 100, FileRefusedError) == {"a": value}


def test_a_key_that_stands_twice_among_many_costs_no_more_than_the_rest(tmp_path: Path) -> None:
    keys = ", ".join(f'"k{number}": 0' for number in range(200_000))
    (tmp_path / "file.json").write_text(f'{{{keys}, "k199999": 1}}', "ascii")
    with pytest.raises(FileRefusedError, match="'k199999'"):
        read_object(tmp_path / "file.json", 1 << 23, FileRefusedError)
