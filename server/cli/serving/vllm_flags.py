"""Translate flags of `vllm serve` and KServe's runtimes, which Helm charts pass, into settings of OneSeek."""

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
    "--model-dir": "--base-model",
    "--http-port": "--port",
    "--max-loras": "--max-adapters",
    "--max-cpu-loras": "--max-cpu-adapters",
    "--tool-call-parser": "--tool-parser",
    "--enable-prefix-caching": "--prefix-caching",
    "--no-enable-prefix-caching": "--no-prefix-caching",
}
"""Maps each flag of vLLM or of KServe's `huggingfaceserver` to OneSeek's flag with the same meaning and
value.
"""
_ALWAYS: Mapping[str, str] = {
    "--enable-lora": "adapters are always enabled",
    "--enable-chunked-prefill": "long prompts are always computed in parts",
    "--enable-auto-tool-choice": "tools are always served",
    "--disable-log-requests": "prompts and answers are not logged",
    "--no-enable-log-requests": "prompts and answers are not logged",
}
"""Maps each flag of vLLM that requests what OneSeek always does to a text that says this. Such a flag is
accepted and ignored; if it asks for the opposite, the text is the error message.
"""
_ENGINE = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "gpu-memory-utilization")
"""vLLM engine options that nearly every Helm chart passes. All others must be given in `--engine-options`."""
_BACKENDS: Mapping[str, list[str]] = {
    "auto": [],
    "vllm": ["--engine=vllm"],
    "huggingface": ["--engine=embedded"],
}
"""Maps each value of KServe's flag `--backend` to the flags that select the engine."""
_PROXY = "TLS is not supported here; put a proxy or gateway in front, and remove the flag"
_REFUSED: Mapping[str, str] = {
    "--ssl-certfile": _PROXY,
    "--ssl-keyfile": _PROXY,
    "--ssl-ca-certs": _PROXY,
    "--enable-ssl-refresh": _PROXY,
    "--trust-remote-code": "code in a model's folder is never run; remove the flag",
    "--model-id": "models are not downloaded; give a local folder with --model-dir",
}
_LISTS: Mapping[str, str] = {
    "--lora-modules": "--adapters",
    "--served-model-name": "--served-model-name",
    "--model-name": "--served-model-name",
    "--api-key": "--api-keys",
}
"""Maps flags that take several values in a row to OneSeek's flag, which is repeated for each value."""


def translate_flags(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of `oneseek serve` with vLLM's flags translated to OneSeek's. Other flags stay as
    they are.

    As in vLLM, a flag may be written with underscores, and the model may come first, without a flag. Raises
    `SettingsError` for a value that vLLM would refuse too.
    """
    translated: list[str] = []
    left = list(arguments)
    if left and not left[0].startswith("-"):
        translated += ["--base-model", left.pop(0)]
    while left:
        flag, equals, value = left.pop(0).partition("=")
        if flag.startswith("--"):
            translated += _translate(flag.replace("_", "-"), [value] if equals else [], left)
        else:
            translated.append(flag + equals + value)
    return translated


def _translate(flag: str, given: list[str], left: list[str]) -> list[str]:
    """Translate one flag. Its value is in `given` if it was written as --flag=value, else it is taken from
    `left`.
    """
    if flag in _REFUSED:
        raise SettingsError(flag, _REFUSED[flag])
    if flag in _ALWAYS:
        _check_enabled(flag, given or _following(left, 1, lambda text: text.lower() in {*_TRUE, *_FALSE}))
        return []
    if flag in _LISTS:
        items = given or _following(left, len(left))
        return [f"{_LISTS[flag]}={one}" for item in items for one in _READERS.get(flag, _same)(item)]
    if flag in ("--max-model-len", "--max-length"):
        return [f"--max-model-len={_length(item)}" for item in given or _following(left, 1)]
    if flag == "--backend":
        return [one for item in given or _following(left, 1) for one in _backend(item)]
    if (option := flag.removeprefix("--")) in _ENGINE:
        name = option.replace("-", "_")
        return [f"--engine-options={name}={item}" for item in given or _following(left, 1)]
    return ["=".join([_RENAMED.get(flag, flag), *given])]


def _following(left: list[str], most: int, fits: Callable[[str], bool] | None = None) -> list[str]:
    """Take up to `most` values from the start of `left`, up to the next flag."""
    taken: list[str] = []
    while left and len(taken) < most and not left[0].startswith("--") and (fits is None or fits(left[0])):
        taken.append(left.pop(0))
    return taken


def _check_enabled(flag: str, value: Sequence[str]) -> None:
    if value and value[0].lower() in _FALSE:
        raise SettingsError(flag, f"{_ALWAYS[flag]}; remove the flag")
    if value and value[0].lower() not in _TRUE:
        raise SettingsError(flag, f"unexpected value {value[0]!r}; write the flag without a value")


def _backend(text: str) -> list[str]:
    if text not in _BACKENDS:
        raise SettingsError("--backend", f"{text!r} is not a backend; use one of {', '.join(_BACKENDS)}")
    return _BACKENDS[text]


def _length(text: str) -> str:
    """Translate a length from vLLM's notation: `32k` is 32000, `32K` is 32768; `auto` and -1 mean the base's
    maximum.
    """
    if text in ("auto", "-1"):
        return "none"
    found = _READABLE.fullmatch(text)
    return str(int(float(found[1]) * _SCALES[found[2]])) if found else text


def _same(item: str) -> list[str]:
    return [item]


def _module(item: str) -> list[str]:
    """Parse a value of `--lora-modules`: `name=path`, or the JSON of an object or a list of objects with
    `name` and `path`.

    KServe puts the JSON in a shell's quotes, which stay there if no shell runs in the container.
    """
    if len(item) > 1 and item[0] == item[-1] == "'":
        item = item[1:-1]
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
            raise SettingsError(
                "--lora-modules", f"{unknown[0]!r} is not a field of a module; use name and path"
            )
        found.append(f"{name}={path}")
    return found


def _bad_module(item: str) -> SettingsError:
    problem = f'{item[:100]!r} is neither name=path nor {{"name": …, "path": …}}'
    return SettingsError("--lora-modules", problem)


_READERS: Mapping[str, Callable[[str], list[str]]] = {"--lora-modules": _module}
