"""What vLLM's pair refuses over HTTP: names, paths, damaged adapters and bodies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from tests.server.administered import Place, add, ask, change, done, load, unload
from tests.server.http_server import Serving
from tests.server.live.loading.vllm_pair import LOAD, UNLOAD, error


@pytest.mark.parametrize(
    ("name", "status"), [("found-sv", 400), ("found-sv@v1.0", 400), ("nobody", 404), ("tiny", 404)]
)
def test_what_was_not_loaded_is_not_unloaded(serving: Serving, name: str, status: int) -> None:
    answer = unload(serving.http, name)
    assert (answer.status_code, error(answer)["param"]) == (status, "lora_name")
    assert ask(serving.http, "found-sv").status_code == 200


@pytest.mark.parametrize(
    "name", ["base", "mistral-7b-instruct", "auto", "a b", "x@", "x@1", "@v1", "å", "sv", "sv@v3", "found-sv"]
)
def test_names_that_cannot_be_taken(serving: Serving, more: Callable[[int], Path], name: str) -> None:
    before = serving.served.snapshot
    answer = load(serving.http, name, more(1))
    assert answer.status_code == 400
    assert error(answer)["param"] == "lora_name"
    assert serving.served.snapshot is before


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "{root}/../outside",
        "{root}/later/../../../outside",
        "{root}\\..\\outside",
        "{outside}",
        "/etc/passwd",
        "/etc/nothing-here",
        "/proc/self/root/etc",
        "{root}/link",
        "{root}/link/outside",
        "{root}/loop",
        "{root}/files-lead-out",
        "https://example.com/adapter",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "s3://bucket/adapter",
        "hf:owner/adapter",
        "owner/adapter",
        "~/adapter",
        "\\\\host\\share",
        "//host/share",
        "a\x00b",
        "a\nb",
        " ",
    ],
)
def test_paths_that_are_not_opened(
    serving: Serving, place: Place, more: Callable[[int], Path], path: str
) -> None:
    outside = place.root / "outside"
    if not outside.exists():
        shutil.copytree(more(1), outside)
        (place.lora_adapters / "link").symlink_to(place.root)
        (place.lora_adapters / "loop").symlink_to("loop")
        leads_out = place.lora_adapters / "files-lead-out"
        leads_out.mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (leads_out / name).symlink_to(outside / name)
    before = serving.served.snapshot
    answer = load(serving.http, "extra", path.format(root=place.lora_adapters, outside=outside))
    assert answer.status_code == 400, answer.text
    found = error(answer)
    assert (found["param"], found["type"]) == ("lora_path", "InvalidUserInput")
    assert str(place.root) not in found["message"]
    assert serving.served.snapshot is before


def test_an_answer_does_not_tell_what_is_outside(serving: Serving, place: Place) -> None:
    told = {load(serving.http, "extra", path).text for path in ("/etc/passwd", "/etc/no-such", "/root/x")}
    assert len(told) == 1


@pytest.mark.parametrize("folder", ["_", "---", "å", "con", "x" * 200, "base-v1", "a v1.0-SV"])
def test_a_folders_name_may_be_anything(
    serving: Serving, place: Place, more: Callable[[int], Path], folder: str
) -> None:
    named = place.lora_adapters / "odd" / folder
    shutil.copytree(more(1), named)
    assert load(serving.http, "extra", named).status_code == 200
    refused = add(serving.http, named)
    assert refused.status_code in (200, 400), refused.text
    if refused.status_code == 200:
        done(change(serving.http, refused.json()["name"], "retire"))


def test_a_folder_that_is_not_there(serving: Serving, place: Place) -> None:
    answer = load(serving.http, "extra", place.lora_adapters / "nothing")
    assert answer.status_code == 404
    assert error(answer)["type"] == "NotFoundError"


def test_a_link_between_roots_is_followed(
    serving: Serving, place: Place, more: Callable[[int], Path]
) -> None:
    inner = place.lora_adapters / "inner"
    inner.symlink_to(more(1))
    assert load(serving.http, "extra", inner).status_code == 200


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes in folders here")
def test_a_pipe_in_place_of_a_file_holds_nothing_up(serving: Serving, place: Place) -> None:
    folder = place.lora_adapters / "pipe"
    folder.mkdir()
    os.mkfifo(folder / "adapter_config.json")
    answer = load(serving.http, "extra", folder)
    assert answer.status_code == 400
    assert "adapter_config.json" in error(answer)["message"]


@pytest.mark.parametrize("spoilt", ["nan", "zero", "shape", "cut", "pickle"])
def test_what_the_registry_would_refuse_changes_nothing(
    serving: Serving, place: Place, more: Callable[[int], Path], spoilt: str
) -> None:
    folder = place.lora_adapters / "later" / f"spoilt-{spoilt}"
    shutil.copytree(more(1), folder)
    weights = folder / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(weights)
    name = next(key for key in tensors if "lora_B" in key)
    if spoilt == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif spoilt == "pickle":
        weights.rename(folder / "adapter_model.bin")
    else:
        if spoilt == "nan":
            tensors[name][0, 0] = float("nan")
        elif spoilt == "shape":
            tensors[name] = tensors[name][:-1].copy()
        else:
            tensors = {key: tensor * (0 if "lora_B" in key else 1) for key, tensor in tensors.items()}
        safetensors.numpy.save_file(tensors, weights)
    before, held = serving.served.snapshot, dict(serving.engine.state().resident)
    answer = load(serving.http, "extra", folder)
    assert answer.status_code == 400
    found = error(answer)
    assert found["param"] == "lora_path"
    assert str(place.root) not in found["message"]
    assert serving.served.snapshot is before
    assert dict(serving.engine.state().resident) == held


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "lora_name"),
        ({"lora_name": "x"}, "lora_path"),
        ({"lora_name": "", "lora_path": "x"}, "lora_name"),
        ({"lora_name": "x", "lora_path": ""}, "lora_path"),
        ({"lora_name": 1, "lora_path": "x"}, "lora_name"),
        ({"lora_name": "x", "lora_path": ["x"]}, "lora_path"),
        ({"lora_name": "x" * 257, "lora_path": "x"}, "lora_name"),
        ({"lora_name": "x", "lora_path": "x" * 1025}, "lora_path"),
        ({"lora_name": "x", "lora_path": "x", "load_inplace": "yes"}, "load_inplace"),
        ({"lora_name": "x", "lora_path": "x", "lora_pth": "x"}, "lora_pth"),
        ({"lora_name": "x", "lora_path": "x", "is_3d_lora_weight": True}, "is_3d_lora_weight"),
    ],
)
def test_misfits_are_named(serving: Serving, body: dict[str, Any], param: str) -> None:
    answer = serving.http.post(LOAD, json=body)
    assert answer.status_code == 400
    assert (error(answer)["param"], error(answer)["type"]) == (param, "Bad Request")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"lora_name": "' + b"x" * 100_000 + b'"}', "application/json", 413),
        (b"[" * 60_000, "application/json", 400),
    ],
)
def test_bodies_that_are_none(serving: Serving, content: bytes, kind: str, status: int) -> None:
    answer = serving.http.post(UNLOAD, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    error(answer)
