"""Recognise the names of LoRA matrices in pickles, for each model family that can be imported, as different
training tools write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters.lora.families import GPT2, LLAMA, OUTER_WORDS, Key, LoraFamily

_TAIL = (
    r"\.lora_(?P<half>[AB]|down|up)"
    r"(?:\.(?P<adapter>[A-Za-z0-9_-]{1,64}))??(?:\.weight)?"
)
_HALVES = {"down": "A", "up": "B"}


@dataclass(frozen=True, slots=True)
class FactorName:
    """The meaning of a LoRA tensor's name: its layer and module in the base model, and which matrix it is."""

    key: Key
    half: str
    """Which of a module's two LoRA matrices the tensor is: `A` or `B`."""
    adapter: str
    """Name of the adapter in the tensor's name. Empty if the tensor's name does not include one."""


@dataclass(frozen=True, slots=True)
class PickleNames:
    """Recognises the names of LoRA matrices in the .pth files of one model family."""

    family: LoraFamily
    _pattern: re.Pattern[str]
    _modules: Mapping[str, str]
    """Maps each spelling of a module in .pth files to the module's name in the family."""

    def read(self, tensor: str) -> FactorName | None:
        """Return the layer, module and matrix that the name `tensor` stands for. None if it is not the name
        of a LoRA matrix in this family.
        """
        match = self._pattern.fullmatch(tensor)
        if match is None:
            return None
        key = int(match["layer"]), self._modules[match["module"]]
        return FactorName(key, _HALVES.get(match["half"], match["half"]), match["adapter"] or "")


def _names(family: LoraFamily, places: str, modules: Mapping[str, str]) -> PickleNames:
    layers = family.layers.rpartition(".")[2]
    spelled = "|".join(re.escape(name) for name in modules)
    pattern = (
        rf"(?:(?:{OUTER_WORDS})\.)*{layers}\.(?P<layer>[0-9]{{1,4}})\.{places}(?P<module>{spelled}){_TAIL}"
    )
    return PickleNames(family, re.compile(pattern), modules)


NAMES: Mapping[str, PickleNames] = {
    "llama": _names(
        LLAMA,
        r"(?:(?:self_attn|attention|attn|mlp|feed_forward)\.)?",
        {name: name for name in LLAMA.names},
    ),
    # Two modules end in c_proj; the part of the layer before it distinguishes them.
    "gpt2": _names(
        GPT2,
        "",
        {target.path: target.name for target in GPT2.targets} | {name: name for name in GPT2.names},
    ),
}
"""Maps each model family that can be imported to its tensor names. Older OneSeek installations have base
models of the Mistral and Llama families (`llama`), and GPT-SW3 (`gpt2`).
"""
_PATHS = "|".join(re.escape(target.path) for names in NAMES.values() for target in names.family.targets)
WHOLE = re.compile(rf".*(?:{_PATHS}|embed_tokens|lm_head|wte|wpe)\.weight")
"""Matches the names of base model weights. They show that a file holds a whole model, not an adapter."""


def family_in(tensors: Iterable[str]) -> str:
    """Return the model family, as a key of `NAMES` such as `llama`, to which most of the tensor names in
    `tensors` belong. If several families have equally many, return the first.
    """
    listed = list(tensors)
    return max(NAMES, key=lambda kind: sum(NAMES[kind].read(tensor) is not None for tensor in listed))
