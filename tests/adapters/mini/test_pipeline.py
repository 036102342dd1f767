"""The mini base comes out of the pipeline of `oneseek train` as out of a plain loop, to the bit.

The loop below is the mini base's recipe written down once more, with torch alone: no accelerate, no
checkpoints, no pieces. What it makes is what the shipped weights were made by.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy, linear
from transformers import MistralConfig, MistralForCausalLM

from adapters.mini import feed
from adapters.mini.build import build
from adapters.mini.recipe import RECIPES
from adapters.training.loop.feed import MakeBatch
from adapters.training.loop.packing import Encoder
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule

SMOKE = RECIPES["smoke"]


def plain_training(model: MistralForCausalLM, batches: MakeBatch, schedule: Schedule) -> None:
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    inner = [value for name, value in named if value.ndim == 2 and "embed" not in name]
    outer = [value for name, value in named if value.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(
        inner, lr=schedule.matrix_rate, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(outer, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    for step in range(schedule.steps):
        batch = batches(step)
        counts = batch.counts[:, 1:]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.get_decoder()(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
            logits = linear(hidden[counts], model.lm_head.weight)
        cross_entropy(logits.float(), batch.ids[:, 1:][counts]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        factor = min((step + 1) / schedule.warmup, 1.0, (schedule.steps - step) / (0.4 * schedule.steps))
        for optimizer, peak in ((muon, schedule.matrix_rate), (adamw, schedule.rate)):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()


def test_the_pipeline_makes_what_a_plain_loop_makes(tmp_path: Path) -> None:
    build(SMOKE, tmp_path / "built", Reporter(io.StringIO()))
    base = tmp_path / "built" / "base"
    encoder = Encoder(Tokenizer.from_file(str(base / "tokenizer.json")))
    config = MistralConfig.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    torch.manual_seed(SMOKE.seed)
    model = MistralForCausalLM(config)
    size = (SMOKE.phases[0].rows, SMOKE.phases[0].length)
    parts = (
        (feed.world(encoder, SMOKE.phases, SMOKE.base.steps, SMOKE.seed), SMOKE.base),
        (feed.voice(encoder, size, SMOKE.seed), SMOKE.voice),
        (feed.voice(encoder, size, SMOKE.seed, own=True), SMOKE.own),
    )
    for batches, schedule in parts:
        plain_training(model, batches, schedule)
        for value in model.parameters():
            value.data = value.data.bfloat16().float()
    made = load_file(base / "model.safetensors")
    expected = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    assert made.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(made[name], value.bfloat16()), name


@pytest.mark.parametrize("change", ["rate", "matrix_rate"])
def test_a_rate_that_is_off_by_a_thousandth_would_show(tmp_path: Path, change: str) -> None:
    encoder = Encoder(Tokenizer.from_file("adapters/mini/weights/base/tokenizer.json"))
    batches = feed.world(encoder, SMOKE.phases, 2, SMOKE.seed)
    found: list[torch.Tensor] = []
    for factor in (1.0, 1.001):
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=4096, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=1, num_key_value_heads=1,
        )  # fmt: skip
        model = MistralForCausalLM(config)
        rates = {"rate": 3e-3, "matrix_rate": 4e-3}
        rates[change] *= factor
        schedule = Schedule(steps=2, warmup=1, rate=rates["rate"], matrix_rate=rates["matrix_rate"])
        plain_training(model, batches, schedule)
        found.append(torch.cat([value.flatten() for value in model.parameters()]))
    assert not torch.equal(*found)
