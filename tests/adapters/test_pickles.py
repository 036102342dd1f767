"""What the names around a pickle tell of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.errors import AdapterError
from adapters.pickles import import_command, refuse_pickle, told_language


@pytest.mark.parametrize(
    ("name", "said", "language"),
    [
        ("oneseek-7b-zero-v1.1-SV.pth", {}, "sv"),
        ("oneseek-7b-zero-v1.1.pth", {}, None),
        ("oneseek-7b-zero-v1.1.pth", {"language": "en"}, "en"),
        ("oneseek-7b-zero-v1.1.pth", {"language": "sv-SE"}, "sv"),
        ("oneseek-7b-zero-v1.1.pth", {"language": " sv_SE "}, "sv"),
        ("oneseek-7b-zero-v1.1.pth", {"language": "Swedish"}, "sv"),
        ("oneseek-7b-zero-v1.1.pth", {"language": "engelska"}, "en"),
        ("oneseek-7b-zero-v1.1-SV.pth", {"language": "en"}, "sv"),
        ("oneseek-7b-zero-v1.1.pth", {"language": "en,sv"}, None),
        ("oneseek-7b-zero-v1.1.pth", {"language": ["en"]}, None),
        ("mine-v2-SV/adapter.pth", {}, "sv"),
        ("mine/adapter_model.bin", {"language": "sv"}, "sv"),
        (".pth", {}, None),
    ],
)
def test_the_language_comes_from_the_name_or_the_json(
    name: str, said: dict[str, object], language: str | None, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"")
    if said:
        file.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    assert told_language(file) == language
    command = f"oneseek adapters import {file}" + (f" --language {language}" if language else "")
    assert import_command(file) == command
    if not name.startswith("."):
        with pytest.raises(AdapterError) as caught:
            refuse_pickle(file)
        assert command in str(caught.value)


def test_a_json_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "a-v1.json").write_text("{", encoding="utf-8")
    assert told_language(tmp_path / "a-v1.pth") is None
