from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.api.fields.generation import ChatFields
from server.api.parsing.sampling import chat_sampling
from server.metrics.engine_state import EngineInfo
from server.serving.sampling_defaults import SamplingDefaults, read_defaults

INFO = EngineInfo("embedded", "sha256:0", 64, 100, True, 4)
MESSAGES = [{"role": "user", "content": "Hej"}]


def write(folder: Path, text: str) -> Path:
    (folder / "generation_config.json").write_text(text)
    return folder


def test_a_base_without_the_file_gets_openai_s_defaults(tmp_path: Path) -> None:
    assert read_defaults(tmp_path) == SamplingDefaults()


def test_what_the_base_says_holds_where_the_request_is_silent(tmp_path: Path) -> None:
    config = {"temperature": 0.3, "top_k": 40, "eos_token_id": 2, "max_new_tokens": 160, "do_sample": True}
    defaults = read_defaults(write(tmp_path, json.dumps(config)))
    assert defaults == SamplingDefaults(temperature=0.3, top_k=40, max_new_tokens=160)
    silent = chat_sampling(ChatFields(messages=MESSAGES), INFO, defaults)
    assert (silent.temperature, silent.top_k, silent.top_p) == (0.3, 40, 1.0)
    asked = chat_sampling(ChatFields(messages=MESSAGES, temperature=0.0, top_k=-1), INFO, defaults)
    assert (asked.temperature, asked.top_k) == (0.0, 0)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"temperature": 9}', "temperature"),
        ('{"top_p": "much"}', "top_p"),
        ('{"max_new_tokens": true}', "max_new_tokens"),
        ("[]", "object"),
        ("{", "JSON"),
    ],
)
def test_nonsense_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_defaults(write(tmp_path, text))
