"""The flags of `vllm serve` that charts and scripts pass, as the settings that say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from server.config.values import SettingsError

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_READABLE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKmM])")
_SCALES = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}

_RENAMED: Mapping[str, str] = {
    "--model": "--base-model",
    "--max-loras": "--max-adapters",
    "--max-cpu-loras": "--max-cpu-adapters",
}
"""vLLM's flag of one value → ours."""
_LISTS: Mapping[str, str] = {
    "--lora-modules": "--adapters",
    "--served-model-name": "--served-model-name",
    "--api-key": "--api-keys",
}
"""Flags that take several values, one after another → ours, given once for each."""


def translate_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments of `serve` with vLLM's flags as ours; others stay as they are.

    As in vLLM, a flag may be written with underscores, and the model may come first, without a flag.
    Raises `SettingsError` for a value that vLLM would refuse too.
    """
    translated: list[str] = []
    left = list(arguments)
    if left and not left[0].startswith("-"):
        translated += ["--base-model", left.pop(0)]
    while left:
        flag, equals, value = left.pop(0).partition("=")
        if not flag.startswith("--"):
            translated.append(flag + equals + value)
            continue
        flag = flag.replace("_", "-")
        given = [value] if equals else []
        if flag == "--enable-lora":
            _check_enabled(given or _following(left, 1, lambda text: text.lower() in {*_TRUE, *_FALSE}))
        elif flag in _LISTS:
            for item in given or _following(left, len(left)):
                translated += [f"{_LISTS[flag]}={one}" for one in _READERS.get(flag, _same)(item)]
        elif flag == "--max-model-len":
            translated += [f"{flag}={_length(item)}" for item in given or _following(left, 1)]
        else:
            translated.append(_RENAMED.get(flag, flag) + equals + value)
    return translated


def _following(left: list[str], most: int, fits: Callable[[str], bool] | None = None) -> list[str]:
    """Take the values that follow a flag, up to the next flag."""
    taken: list[str] = []
    while left and len(taken) < most and not left[0].startswith("--") and (fits is None or fits(left[0])):
        taken.append(left.pop(0))
    return taken


def _check_enabled(value: Sequence[str]) -> None:
    if value and value[0].lower() in _FALSE:
        raise SettingsError("--enable-lora", "adapters are always enabled; leave the flag out")
    if value and value[0].lower() not in _TRUE:
        raise SettingsError("--enable-lora", f"{value[0]!r} is not expected here; the flag takes no value")


def _length(text: str) -> str:
    """A length as vLLM reads it: `32k` is 32000, `32K` is 32768; `auto` and -1 leave it to the base."""
    if text in ("auto", "-1"):
        return "none"
    found = _READABLE.fullmatch(text)
    return str(int(float(found[1]) * _SCALES[found[2]])) if found else text


def _same(item: str) -> list[str]:
    return [item]


def _module(item: str) -> list[str]:
    """`name=path`, or the JSON of an object or a list of objects with `name` and `path`."""
    if not item.lstrip().startswith(("{", "[")):
        if item.strip() and "=" not in item:
            raise _bad_module(item)
        return [item] if item.strip() else []
    try:
        value: object = json.loads(item)
    except ValueError:
        raise _bad_module(item) from None
    found: list[str] = []
    for module in cast("list[object]", value) if isinstance(value, list) else [value]:
        fields = cast("dict[str, object]", module) if isinstance(module, dict) else {}
        name, path = fields.get("name"), fields.get("path")
        if not (isinstance(name, str) and name and isinstance(path, str) and path):
            raise _bad_module(item)
        if unknown := sorted(fields.keys() - {"name", "path", "base_model_name", "is_3d_lora_weight"}):
            raise SettingsError("--lora-modules", f"{unknown[0]!r} is not a field; give name and path")
        found.append(f"{name}={path}")
    return found


def _bad_module(item: str) -> SettingsError:
    problem = f'{item[:100]!r} is neither name=path nor {{"name": …, "path": …}}'
    return SettingsError("--lora-modules", problem)


_READERS: Mapping[str, Callable[[str], list[str]]] = {"--lora-modules": _module}
