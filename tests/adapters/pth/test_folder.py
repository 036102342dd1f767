"""Which adapters a folder of an existing installation holds, and in which order they come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from adapters.errors import AdapterError
from adapters.pth.folder import find_candidates


def laid_out(root: Path, files: Sequence[str]) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}", encoding="utf-8")
    return root


def found(root: Path) -> list[str]:
    return [one.path.relative_to(root).as_posix() for one in find_candidates([root])]


def test_files_and_folders_of_one_adapter_are_found(tmp_path: Path) -> None:
    root = laid_out(
        tmp_path / "place",
        [
            *("a-v1.pth", "b-v1.BIN", "c-v1.safetensors", "d-v1.pt", "a-v1.json", "notes.txt", ".e-v1.pth"),
            *("optimizer.pt", "training_args.bin", "rng_state_0.pth", "scheduler.pt", ".hidden/f.pth"),
            *("g-v1/adapter.pth", "h-v1/adapter_config.json", "h-v1/adapter_model.safetensors"),
            *("i-v1/adapter_config.json", "i-v1/adapter_model.bin", "logs/run.txt"),
            *("a-base/config.json", "a-base/model.safetensors"),
            *("j-v1/checkpoint-5/adapter_config.json", "k-v1/adapter_config.json"),
        ],
    )
    assert found(root) == [
        *("a-v1.pth", "b-v1.BIN", "c-v1.safetensors", "d-v1.pt", "g-v1/adapter.pth", "h-v1"),
        *("i-v1/adapter_model.bin", "j-v1", "k-v1"),
    ]


def test_a_folder_in_pefts_layout_is_one_adapter(tmp_path: Path) -> None:
    files = ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "checkpoint-5/adapter.pth")
    assert found(laid_out(tmp_path / "mine", files)) == ["."]


@pytest.mark.parametrize(
    ("versions", "order"),
    [
        (("v1.0", "v1.1", "v1.2", "v1.10"), ("v1.1", "v1.0", "v1.2", "v1.10")),
        (("v1.2", "v1.9", "v1.10"), ("v1.10", "v1.2", "v1.9")),
    ],
)
def test_the_version_that_was_served_comes_first(
    versions: Sequence[str], order: Sequence[str], tmp_path: Path
) -> None:
    names = [f"zero-{version}{suffix}.pth" for version in versions for suffix in ("", "-SV")]
    assert found(laid_out(tmp_path, names)) == [
        f"zero-{version}{suffix}.pth" for suffix in ("", "-SV") for version in order
    ]


def test_languages_are_what_names_and_files_beside_them_tell(tmp_path: Path) -> None:
    laid_out(tmp_path, ["a-v1-SV.pth", "b-v1.pth", "c-v1.pth", "d-v1-SV/adapter.pth"])
    (tmp_path / "c-v1.json").write_text('{"language": "English"}', encoding="utf-8")
    assert [one.language for one in find_candidates([tmp_path])] == ["sv", None, "en", "sv"]


def test_nothing_is_taken_twice_and_nothing_is_an_error(tmp_path: Path) -> None:
    laid_out(tmp_path / "weights", ["a-v1.pth"])
    both = [tmp_path / "weights", tmp_path / "weights" / "a-v1.pth"]
    assert len(find_candidates(both)) == 1
    laid_out(tmp_path / "empty", ["readme.txt"])
    with pytest.raises(AdapterError, match="empty"):
        find_candidates([tmp_path / "empty"])
