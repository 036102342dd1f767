"""An adapter that records no digest of its base: an evident contradiction is refused, a doubt is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.errors import AdapterError
from adapters.lora.base_name import base_names, check_base_name


@pytest.mark.parametrize(
    ("recorded", "known"),
    [
        ("meta-llama/Llama-2-7b-hf", ("mistral-7b-instruct", "mistral")),
        ("/home/me/models/Meta-Llama-3-8B/", ("mistral-7b", "mistral")),
        ("C:\\models\\Qwen2-7B", ("base", "mistral")),
        ("mistralai/Mistral-7B-v0.1", ("llama-2-7b-chat", "llama")),
        ("microsoft/phi-2", ("base", "llama")),
        ("AI-Sweden-Models/gpt-sw3-126m", ("base", "mistral")),
        ("mistralai/Mistral-7B-v0.1", ("gpt-sw3-20b-instruct", "gpt2")),
    ],
)
def test_another_family_is_refused(tmp_path: Path, recorded: str, known: tuple[str, ...]) -> None:
    with pytest.raises(AdapterError, match="base_model_name_or_path"):
        check(tmp_path, recorded, known)


@pytest.mark.parametrize(
    ("recorded", "known"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.2", ("mistral-7b", "mistral")),
        ("HuggingFaceH4/zephyr-7b-beta", ("mistral-7b", "mistral")),
        ("/data/base", ("mistral-7b", "mistral")),
        ("mistralai/Ministral-8B-Instruct-2410", ("my-base", "mistral")),
        ("TinyLlama/TinyLlama-1.1B", ("base", "llama")),
        ("dolphin-2.1-mistral-7b", ("mistral-7b", "mistral")),
        ("someone/llama-mistral-merge", ("mistral-7b", "mistral")),
        ("deepseek-ai/deepseek-llm-7b", ("base", "llama")),
        ("AI-Sweden-Models/gpt-sw3-126m", ("svenska", "gpt2")),
        ("microsoft/DialoGPT-small", ("base", "gpt2")),
        ("", ("mistral-7b", "mistral")),
        (None, ("mistral-7b", "mistral")),
        (5, ("mistral-7b", "mistral")),
        ("meta-llama/Llama-2-7b-hf", ("oneseek-7b-zero-base", "a-kind-of-tomorrow")),
    ],
)
def test_what_does_not_contradict_is_taken(tmp_path: Path, recorded: object, known: tuple[str, ...]) -> None:
    check(tmp_path, recorded, known)


def check(folder: Path, recorded: object, known: tuple[str, ...]) -> None:
    text = json.dumps({"base_model_name_or_path": recorded})
    (folder / "adapter_config.json").write_text(text, "utf-8")
    check_base_name(folder, known)


def test_a_base_is_known_by_what_it_says_of_itself(tmp_path: Path) -> None:
    fields = {"_name_or_path": "mistralai/Mistral-7B-v0.1", "model_type": "mistral"}
    (tmp_path / "config.json").write_text(json.dumps(fields), "utf-8")
    assert base_names(tmp_path, "mine") == ("mine", tmp_path.name, "mistralai/Mistral-7B-v0.1", "mistral")
    assert base_names(tmp_path / "nowhere", "mine") == ("mine", "nowhere")
