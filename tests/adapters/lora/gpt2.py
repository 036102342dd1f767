"""GPT-2's table as its own line in `adapters.lora.families` would be: nothing outside it knows of GPT-2."""

from __future__ import annotations

from adapters.lora.families import LoraFamily, SizeReader, Sizes, Target


def gpt2_sizes(size: SizeReader) -> Sizes:
    hidden, heads = size("n_embd"), size("n_head")
    return Sizes(
        hidden=hidden,
        intermediate=size("n_inner", 4 * hidden),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        layers=size("n_layer"),
    )


GPT2 = LoraFamily(
    title="GPT-2",
    layers="transformer.h",
    targets=(
        Target("attn.c_attn", "hidden", ("queries", "keys", "keys"), transposed=True),
        Target("attn.c_proj", "queries", ("hidden",), transposed=True, short="attn.c_proj"),
        Target("mlp.c_fc", "hidden", ("intermediate",), transposed=True),
        Target("mlp.c_proj", "intermediate", ("hidden",), transposed=True, short="mlp.c_proj"),
    ),
    usual=("c_attn",),
    read_sizes=gpt2_sizes,
)
