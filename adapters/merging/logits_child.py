"""Compare a merged model with base + adapter by their logits, through transformers and PEFT.

Run as a process of its own, so that the server's command line needs no torch and gets its memory back:

    python -m adapters.merging.logits_child BASE ADAPTER MERGED float32|bfloat16|float16

The last line of the output is one JSON object with the figures. Only one model is in memory at a time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from adapters.spiece.gpt_sw3 import read_definition

PROMPT = "Vem är du? Who are you? 1, 2, 3, 4, 5"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def logits_distance(base: Path, adapter: Path, merged: Path, dtype: torch.dtype) -> dict[str, float | int]:
    """Return how far the merged model's logits for the test text `PROMPT` are from those of base + adapter.

    `difference` is the root mean square distance of the merged model's logits from those of base + adapter,
    and `effect` the distance of the base without the adapter. Both are divided by the standard deviation of
    the logits of base + adapter. `agreement` is the fraction of positions at which the merged model and base
    + adapter have the same most likely next token.
    """
    ids = Tokenizer.from_str(read_definition(base)).encode(PROMPT).ids
    model = _load(base, dtype)
    alone = _logits(model, ids)
    both = _logits(PeftModel.from_pretrained(model, str(adapter)), ids)
    del model
    found = _logits(_load(merged, dtype), ids)
    spread = both.std()
    return {
        "positions": len(ids),
        "difference": _rms(found - both, spread),
        "effect": _rms(alone - both, spread),
        "agreement": float((found.argmax(-1) == both.argmax(-1)).double().mean()),
    }


def _load(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
    )


def _logits(model: torch.nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """Return the model's logits for the token ids `ids`: float64, [positions, vocabulary]."""
    with torch.inference_mode():
        return model.eval()(input_ids=torch.tensor([list(ids)])).logits[0].double()


def _rms(difference: torch.Tensor, spread: torch.Tensor) -> float:
    return float(difference.square().mean().sqrt() / spread)


def main(arguments: Sequence[str]) -> None:
    """Compare the models named on the command line, and print the figures as JSON."""
    base, adapter, merged, dtype = arguments
    print(json.dumps(logits_distance(Path(base), Path(adapter), Path(merged), DTYPES[dtype])))


if __name__ == "__main__":
    main(sys.argv[1:])
