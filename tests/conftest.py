"""A tiny random base of the real architecture, with a tokenizer and adapters in PEFT layout."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from tests.device.bases import write_tiny_adapter, write_tiny_base

if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    # A busy machine may take longer for an example than the default of 0.2 s.
    settings.register_profile("unhurried", settings(), deadline=None)
    settings.load_profile("unhurried")

VOCABULARY = 512
OTHERS_WARN = r"ignore::Warning:(?!(server|adapters|routing|tests)\b)"
NEEDED = {"vllm": "vllm", "device": "webgpu", "ray": "remote", "clients/suite": "none of these"}
"""Folder → the engine without which its tests cannot run; the clients' have an environment of their own."""
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
TEXT = [
    "Who are you? I am a small model for tests, and I answer in two languages.",
    "Vem är du? Jag är en liten modell för prov, och jag svarar på två språk. Åh, så bra! Överallt.",
    "[INST] [/INST] user assistant system 0 1 2 3 4 5 6 7 8 9 . , ! ? : ; - ( ) ' \"",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=("embedded", "device", "webgpu", "vllm", "remote"),
        default="embedded",
        help="the engine under test in tests/server/engines: device is the embedded one by its code for "
        "devices, on the CPU, webgpu that code on a device, vllm runs tests/vllm too (make test-vllm), and "
        "remote runs tests/ray too, over replicas (make test-ray)",
    )
    parser.addoption(
        "--family",
        choices=("mistral", "llama", "qwen2", "qwen3", "gpt2"),
        default="mistral",
        help="the architecture of the base in tests/server/engines",
    )
    parser.addoption(
        "--prometheus",
        metavar="PATH",
        help="a program of Prometheus 2, which tests/deploy runs (make test-deploy)",
    )
    parser.addoption(
        "--deploy-tools",
        metavar="FOLDER",
        type=Path,
        help="what tests.deploy.tools has unpacked: tests/deploy builds and runs an image with it",
    )
    parser.addoption(
        "--kubernetes",
        metavar="PYTHON",
        help="the interpreter of the environment that renders charts, for tests/deploy/kubernetes "
        "(make test-deploy)",
    )
    parser.addoption(
        "--chromium", metavar="PATH", help="a Chromium, which tests/page/suite runs (make test-page)"
    )
    parser.addoption("--axe", metavar="PATH", help="axe-core's script, for tests/page/suite")
    parser.addoption(
        "--without-torch",
        action="store_true",
        help="write the tiny base and its adapters without torch, whose import takes seconds",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("engine") == "webgpu":
        import onnxruntime

        if "WebGpuExecutionProvider" not in onnxruntime.get_available_providers():
            raise pytest.UsageError(f"--engine webgpu: not in {sys.prefix}; make test-device brings its own")
    if config.getoption("engine") == "remote":
        # Ray and what it brings warn of each other; our own warnings stay errors.
        config.addinivalue_line("filterwarnings", OTHERS_WARN)
    if config.getoption("engine") != "vllm":
        return
    if importlib.util.find_spec("vllm") is None:
        raise pytest.UsageError(f"--engine vllm: no vLLM in {sys.prefix}; make test-vllm brings its own")
    # vLLM and what it brings warn of each other; our own warnings stay errors.
    config.addinivalue_line("filterwarnings", OTHERS_WARN)
    # The line above does not reach the end of the run, where vLLM's context of sockets is collected unclosed.
    warnings.filterwarnings("ignore", category=pytest.PytestUnraisableExceptionWarning)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs vLLM, a device, Prometheus or a browser is asked for by name, and then never skipped."""
    if collection_path == Path(__file__).parent / "page" / "suite":
        return None if config.getoption("chromium") else True
    if collection_path == Path(__file__).parent / "deploy":
        return None if config.getoption("prometheus") or config.getoption("kubernetes") else True
    if collection_path == Path(__file__).parent / "deploy" / "kubernetes":
        return None if config.getoption("kubernetes") else True
    engine = config.getoption("engine")
    needs = {Path(__file__).parent / folder: name for folder, name in NEEDED.items()}
    return True if needs.get(collection_path, engine) != engine else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The fast tests first: a mistake shows within seconds, not after the slow ones.

    vLLM takes longer to start than all but the slowest tests, so there each module stays in one piece.
    """
    if config.getoption("engine") != "vllm":
        items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def write_tokenizer(folder: Path) -> None:
    """A byte-fallback BPE tokenizer as Mistral's, of at most `VOCABULARY` tokens, with a chat template."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in special] + bytes_,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] in special]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "add_bos_token": True,
                "chat_template": TEMPLATE,
            }
        )
    )


@pytest.fixture(scope="session")
def without_torch(request: pytest.FixtureRequest) -> bool:
    """Whether bases are written without torch, which the environment of `make test-device` lacks."""
    options = request.config.option
    return options.engine == "webgpu" or options.without_torch


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, without_torch: bool) -> Path:
    """A random 3-layer Mistral with grouped-query attention, heads as small as vLLM takes; context 256."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    if without_torch:
        write_tiny_base(folder)
        write_tokenizer(folder)
        return folder
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        sliding_window=None,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    MistralForCausalLM(config).float().eval().save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def make_adapter(
    tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, without_torch: bool
) -> Callable[..., Path]:
    """Makes a random adapter for `tiny_base`: name, seed, rank and targets decide it."""
    root = tmp_path_factory.mktemp("adapters")

    def make(
        name: str,
        seed: int,
        rank: int = 4,
        targets: tuple[str, ...] = ("q_proj", "v_proj"),
        scale: float = 0.3,
    ) -> Path:
        folder = root / name
        if folder.exists():
            return folder
        if without_torch:
            write_tiny_adapter(folder, seed, rank, targets, scale)
            return folder
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import MistralForCausalLM

        torch.manual_seed(seed)
        base = MistralForCausalLM.from_pretrained(tiny_base)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM")
        model = get_peft_model(base, config)  # pyright: ignore[reportArgumentType] # its stubs want PreTrainedModel
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=scale)
        model.save_pretrained(str(folder))
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_adapters(make_adapter: Callable[..., Path]) -> dict[str, Path]:
    """Two adapters of different rank and targets."""
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return {"en": make_adapter("en", 1), "sv": make_adapter("sv", 2, rank=8, targets=every)}
