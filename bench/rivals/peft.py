"""Measure the decode speed of transformers + PEFT in bfloat16, with a batch whose sequences use different
adapters.

    python -m bench.rivals.peft MODEL en=PATH sv=PATH

The script passes the adapter of each sequence to `generate` as `adapter_names`. It prints a JSON object that
maps each batch size to decode tokens per second (median step, context of 128 tokens). It needs torch,
transformers and peft.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import cast

CONTEXT, STEPS, WARMUP = 128, 40, 6


def main() -> None:
    """Measure batches of 1, 8 and 32 sequences, and print the result as JSON."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

    class Clock(StoppingCriteria):
        """Records the time of every decode step."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, input_ids: torch.LongTensor, scores: object, **_: object) -> torch.BoolTensor:
            self.times.append(time.perf_counter())
            return cast("torch.BoolTensor", torch.zeros(input_ids.shape[0], dtype=torch.bool))

    named = dict(argument.split("=", 1) for argument in sys.argv[2:])
    base = AutoModelForCausalLM.from_pretrained(Path(sys.argv[1]), dtype=torch.bfloat16)
    first, *others = named
    model = PeftModel.from_pretrained(base, named[first], adapter_name=first)
    for name in others:
        model.load_adapter(named[name], name)
    model.eval()
    result: dict[str, float] = {}
    for batch in (1, 8, 32):
        clock = Clock()
        names = [("__base__", *named)[i % (1 + len(named))] for i in range(batch)]
        prompt = torch.randint(10, base.config.vocab_size - 10, (batch, CONTEXT))
        with torch.no_grad():
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=STEPS + WARMUP,
                min_new_tokens=STEPS + WARMUP,
                do_sample=False,
                pad_token_id=0,
                adapter_names=names,
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        steps = [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)][WARMUP:]
        result[str(batch)] = round(batch / statistics.median(steps), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
