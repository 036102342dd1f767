"""What pickles call the factors of a LoRA, whichever tool wrote them, for each family that is imported."""

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
    """One factor's place."""

    key: Key
    half: str
    """A or B."""
    adapter: str
    """Empty if the file does not name one."""


@dataclass(frozen=True, slots=True)
class PickleNames:
    """How one family's factors are called."""

    family: LoraFamily
    _pattern: re.Pattern[str]
    _modules: Mapping[str, str]
    """As a name spells it → the family's name."""

    def read(self, tensor: str) -> FactorName | None:
        """Which factor `tensor` is; None if it is none of the family's."""
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
    # Two modules end in c_proj, so the part of the layer tells them apart.
    "gpt2": _names(
        GPT2,
        "module|base_model|model|transformer",
        "",
        {target.path: target.name for target in GPT2.targets} | {name: name for name in GPT2.names},
    ),
}
"""Existing installations have Mistral and Llama bases, and GPT-SW3, which is a GPT-2."""
_PATHS = "|".join(re.escape(target.path) for names in NAMES.values() for target in names.family.targets)
WHOLE = re.compile(rf".*(?:{_PATHS}|embed_tokens|lm_head|wte|wpe)\.weight")
"""Matches what a whole model's weights are called."""


def family_in(tensors: Iterable[str]) -> str:
    """The key in `NAMES` of the family that knows most of a file's tensors, the first of several alike."""
    listed = list(tensors)
    return max(NAMES, key=lambda kind: sum(NAMES[kind].read(tensor) is not None for tensor in listed))
