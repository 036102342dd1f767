"""`oneseek serve` takes the flags that charts pass to vLLM."""

from __future__ import annotations

import pytest

from server.__main__ import main
from server.cli.serving.vllm_flags import translate_flags
from server.config.settings import ResolvedSettings, Settings
from server.config.values import SettingsError

MODULE = '{"name": "sv", "path": "/a/sv", "base_model_name": "mini"}'


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--enable-lora"], []),
        (["--enable_lora", "--port", "1"], ["--port", "1"]),
        (["--enable-lora=true", "--enable-lora", "True"], []),
        (["--lora-modules", "sv=/a/sv", "en=/a/en"], ["--adapters=sv=/a/sv", "--adapters=en=/a/en"]),
        (["--lora_modules=sv=/a/sv"], ["--adapters=sv=/a/sv"]),
        (["--lora-modules", MODULE], ["--adapters=sv=/a/sv"]),
        (["--lora-modules", f"[{MODULE}]"], ["--adapters=sv=/a/sv"]),
        (["--lora-modules", "", "sv=/a/sv"], ["--adapters=sv=/a/sv"]),
        (["--max-loras", "4"], ["--max-adapters", "4"]),
        (["--max_loras=4"], ["--max-adapters=4"]),
        (["--max-cpu-loras", "8"], ["--max-cpu-adapters", "8"]),
        (["--max_lora_rank", "64"], ["--max-lora-rank", "64"]),
        (["--served-model-name", "a", "org/b"], ["--served-model-name=a", "--served-model-name=org/b"]),
        (["--max-model-len", "4096"], ["--max-model-len=4096"]),
        (["--max-model-len", "32k"], ["--max-model-len=32000"]),
        (["--max_model_len=1.5K"], ["--max-model-len=1536"]),
        (["--max-model-len", "auto"], ["--max-model-len=none"]),
        (["--api-key", "k1", "k2", "--port", "1"], ["--api-keys=k1", "--api-keys=k2", "--port", "1"]),
        (["/models/base", "--port", "1"], ["--base-model", "/models/base", "--port", "1"]),
        (["--model", "/models/base"], ["--base-model", "/models/base"]),
        (["--model_name=mini", "--model_dir=/m"], ["--served-model-name=mini", "--base-model=/m"]),
        (["--model-dir", "/m", "--http_port", "1"], ["--base-model", "/m", "--port", "1"]),
        (["--max_length=1k", "--backend", "auto"], ["--max-model-len=1000"]),
        (["--backend=vllm"], ["--engine=vllm"]),
        (["--backend=huggingface"], ["--engine=embedded"]),
        (["--lora-modules", f"'{MODULE}'", "'en=/a/en'"], ["--adapters=sv=/a/sv", "--adapters=en=/a/en"]),
        (["--tensor-parallel-size", "2"], ["--engine-options=tensor_parallel_size=2"]),
        (["--gpu_memory_utilization=0.9"], ["--engine-options=gpu_memory_utilization=0.9"]),
        (["--enable-chunked-prefill", "--disable-log-requests", "--enable-auto-tool-choice"], []),
        (["--tool-call-parser", "hermes"], ["--tool-parser", "hermes"]),
        (["--no-enable-prefix-caching"], ["--no-prefix-caching"]),
        (["--prefix-caching", "--log_level", "info"], ["--prefix-caching", "--log-level", "info"]),
        (["--routing-languages", "sv=a_b"], ["--routing-languages", "sv=a_b"]),
        (["-h"], ["-h"]),
    ],
)
def test_flags_become_settings(given: list[str], found: list[str]) -> None:
    assert translate_flags(given) == found


@pytest.mark.parametrize(
    "given",
    [
        ["--enable-lora=false"],
        ["--enable-lora=maybe"],
        ["--lora-modules", "sv"],
        ["--lora-modules", '{"name": "sv"}'],
        ["--lora-modules", '{"name": "sv"'],
        ["--lora-modules", '{"name": "sv", "path": "/a", "url": "x"}'],
        ["--lora-modules", "[1]"],
        ["--enable-chunked-prefill=false"],
        ["--backend=sglang"],
        ["--ssl-certfile", "/tls/tls.crt"],
        ["--enable-ssl-refresh"],
        ["--trust-remote-code"],
        ["--model-id=org/model"],
    ],
)
def test_what_cannot_be_is_refused_by_its_flag(given: list[str]) -> None:
    with pytest.raises(SettingsError) as error:
        translate_flags(given)
    assert error.value.name == given[0].partition("=")[0]


def test_a_chart_starts_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def serve(resolved: ResolvedSettings) -> int:
        seen.append(resolved.settings)
        return 0

    monkeypatch.setattr("server.cli.app.serve", serve)
    line = (
        "serve /models/base --host 0.0.0.0 --port 8110 --enable-lora --max-loras 4 --max-cpu-loras 8 "
        "--max_lora_rank 64 --lora-modules sv=/a/sv en=/a/en --served-model-name base org/base "
        "--max-model-len 4096 --api-key k1 --api-keys k2,k3"
    )
    assert main(line.split()) == 0
    (settings,) = seen
    assert str(settings.base_model) == "/models/base"
    assert settings.adapters == ("sv=/a/sv", "en=/a/en")
    assert (settings.max_adapters, settings.max_cpu_adapters, settings.max_lora_rank) == (4, 8, 64)
    assert settings.served_model_name == ("base", "org/base")
    assert (settings.max_model_len, settings.api_keys) == (4096, ("k1", "k2", "k3"))
