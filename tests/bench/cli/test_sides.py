"""The sides of a comparison that are not servers yet."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
from bench.cli.options import BenchMistakeError
from bench.cli.sides import checked_out, read_rounds
from tests.bench.cli.test_mistakes import write

ROOT = Path(bench.__file__).parent.parent


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tree has no commits")
def test_a_commit_is_unpacked_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "stale").touch()
    with checked_out("HEAD", folder) as made:
        assert (made / "server" / "__main__.py").is_file()
        assert not (made / "stale").exists()
    assert not folder.exists()
    with pytest.raises(BenchMistakeError, match="'nowhere'"), checked_out("nowhere", folder):
        pass


def test_a_report_gives_the_rounds_of_its_scenario(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write(path, [10.0, 20.0])
    assert [figures["tokens_per_second"] for figures in read_rounds(path, "mixed")] == [10, 20]
    with pytest.raises(BenchMistakeError, match="'base'"):
        read_rounds(path, "base")
    path.write_text('{"schema": "other/1"}')
    with pytest.raises(BenchMistakeError, match="other/1"):
        read_rounds(path, "mixed")
