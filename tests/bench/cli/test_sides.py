"""The sides of a comparison that are not servers yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench
from bench.cli.options import BenchMistakeError
from bench.cli.sides import checked_out, read_rounds
from bench.report.document import SCHEMA
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
    load, rounds = read_rounds(path, "mixed")
    assert load == "2 users"
    assert [figures["tokens_per_second"] for figures in rounds] == [10, 20]
    with pytest.raises(BenchMistakeError, match="'base'"):
        read_rounds(path, "base")
    path.write_text('{"schema": "other/1"}')
    with pytest.raises(BenchMistakeError, match="other/1"):
        read_rounds(path, "mixed")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        "7",
        "[" * 100_000,
        '{"schema": "oneseek-bench/1"}',
        f'{{"schema": "{SCHEMA}", "scenarios": [{{}}]}}',
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(BenchMistakeError, match=r"report\.json"):
        read_rounds(path, "mixed")


def test_different_loads_are_no_rounds_of_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write(path, [10.0] * 7)
    document = json.loads(path.read_text())
    document["scenarios"][0]["load"]["label"] = "4 users"
    path.write_text(json.dumps(document))
    with pytest.raises(BenchMistakeError, match="4 users; 2 users"):
        read_rounds(path, "mixed")
