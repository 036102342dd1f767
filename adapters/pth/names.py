"""Names of LoRA factors in pickles, for each tool and each family that can be imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapters.lora.families import GPT2, LLAMA, Key, LoraFamily

_TAIL = (
    r"\.lora_(?P<half>[AB]|down|up)"
    r"(?:\.(?P<adapter>[A-Za-z0-9_-]{1,64}))??(?:\.weight)?"
)
_HALVES = {"down": "A", "up": "B"}


@dataclass(frozen=True, slots=True)
class FactorName:
    """The place of one LoRA matrix in the base."""

    key: Key
    half: str
    """Which of the two LoRA matrices: `A` or `B`."""
    adapter: str
    """Name of the adapter. Empty if the file does not name one."""


@dataclass(frozen=True, slots=True)
class PickleNames:
    """Reads the names of LoRA matrices in .pth files of one model family."""

    family: LoraFamily
    _pattern: re.Pattern[str]
    _modules: Mapping[str, str]
    """Maps each spelling of a module to its name in the family."""

    def read(self, tensor: str) -> FactorName | None:
        """Return the factor that `tensor` names. None if it is not one of the family's."""
        match = self._pattern.fullmatch(tensor)
        if match is None:
            return None
        key = int(match["layer"]), self._modules[match["module"]]
        return FactorName(key, _HALVES.get(match["half"], match["half"]), match["adapter"] or "")


def _names(family: LoraFamily, around: str, places: str, modules: Mapping[str, str]) -> PickleNames:
    layers = family.layers.rpartition(".")[2]
    spelled = "|".join(re.escape(name) for name in modules)
    pattern = rf"(?:(?:{around})\.)*{layers}\.(?P<layer>[0-9]{{1,4}})\.{places}(?P<module>{spelled}){_TAIL}"
    return PickleNames(family, re.compile(pattern), modules)


NAMES: Mapping[str, PickleNames] = {
    "llama": _names(
        LLAMA,
        "module|base_model|model|language_model|decoder",
        r"(?:(?:self_attn|attention|attn|mlp|feed_forward)\.)?",
        {name: name for name in LLAMA.names},
    ),
    # Two modules end in c_proj; the part of the layer before it distinguishes them.
    "gpt2": _names(
        GPT2,
        "module|base_model|model|transformer",
        "",
        {target.path: target.name for target in GPT2.targets} | {name: name for name in GPT2.names},
    ),
}
"""The families to import: existing installations have Mistral and Llama bases, and GPT-SW3, which is
a GPT-2.
"""
_PATHS = "|".join(re.escape(target.path) for names in NAMES.values() for target in names.family.targets)
WHOLE = re.compile(rf".*(?:{_PATHS}|embed_tokens|lm_head|wte|wpe)\.weight")
"""Matches the names of a whole model's weights."""


def family_in(tensors: Iterable[str]) -> str:
    """Return the key in `NAMES` of the family with most of a file's tensors; the first if several have
    equally many.
    """
    listed = list(tensors)
    return max(NAMES, key=lambda kind: sum(NAMES[kind].read(tensor) is not None for tensor in listed))
