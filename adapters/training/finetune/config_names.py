"""Read training configuration files that use the option names of other trainers: TRL (with PEFT), axolotl and
unsloth.

Tables map each name to an OneSeek option. A name that is in no table is refused. A value that asks for
something that OneSeek does not do, such as another optimizer, is also refused, never ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import yaml

from adapters.errors import format_value
from adapters.files.yamlfile import load_yaml
from adapters.training.finetune.config_tables import FIXED, FOREIGN, HARMLESS_PLUGINS, IDLE, SECTIONS
from adapters.training.loop.options import ALL_LINEAR, OptionError, TrainOptions

_RUN = (
    *("alias", "base_model", "dataset", "external_model", "force", "output", "questions", "teacher"),
    *("teacher_key_env", "teacher_model", "threads", "version"),
)
OWN = frozenset({*_RUN, *(item.name for item in fields(TrainOptions))})
"""The names of all training options that OneSeek has itself."""

_TYPES = (None, "alpaca", "chat_template", "chat_template.default", "sharegpt")
"""Values of `type` of an axolotl data set that OneSeek can read."""
_PIECES: Mapping[str, tuple[object, ...]] = {
    "split": ("train",),
    "ds_type": ("json",),
    "field_messages": ("messages", "conversations"),
    "message_property_mappings": (
        {"role": "role", "content": "content"},
        {"role": "from", "content": "value"},
    ),
    "message_field_role": ("role", "from"),
    "message_field_content": ("content", "value"),
}
"""Options of an axolotl data set that OneSeek does not have. Each is accepted only with these values, which
describe how OneSeek reads data sets anyway.
"""
_EMPTY: tuple[object, ...] = (None, "", [], {})
"""Option values that count as not given, whatever the option's name."""
_PATTERN = re.compile(r"[^\w.,\s]")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The options in a training configuration file, under OneSeek's names."""

    options: dict[str, Any]
    """Maps each OneSeek option in the file to its value, as parsed from YAML."""
    written: dict[str, str]
    """Maps each OneSeek option in the file to the name that the file uses for it, for error messages."""


def read_training_config(
    path: Path, also: Collection[str] = (), passed_over: Callable[[list[str]], object] = lambda names: None
) -> ConfigFile:
    """Read training options from the YAML file `path`, under OneSeek's names or those of a supported trainer.

    `also` holds further OneSeek option names to accept. `passed_over` is called with the names in the file
    that do not affect the result of training. Empty values are skipped. Raises `OptionError` that lists every
    unknown, repeated or unsupported option by its name in the file, and `OSError`.
    """
    try:
        found: object = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = str(error).replace("\n", " ")
        raise OptionError("config", f"the file {path} is not valid YAML: {problem}") from error
    if not isinstance(found, dict):
        raise OptionError("config", f"the file {path} must hold a YAML mapping of option names to values")
    options: dict[str, Any] = {}
    said: dict[str, str] = {}
    idle: list[str] = []
    problems: list[OptionError] = []
    for name, value in _flat(cast("dict[object, Any]", found)):
        if value in _EMPTY:
            continue
        try:
            meant = _meaning(name, value, also)
        except OptionError as problem:
            problems.append(problem)
            continue
        if meant is None:
            idle.append(name)
        for option, one in (meant or {}).items():
            if option in said and not _agree(option, one, options[option]):
                problems.append(
                    OptionError(
                        name, f"the option means the same as {said[option]} in this file; keep one of the two"
                    )
                )
            if options.get(option) != ALL_LINEAR:
                said[option], options[option] = name, one
    raise_all(problems, path)
    if idle:
        passed_over(idle)
    return ConfigFile(options, said)


def _agree(option: str, one: Any, other: Any) -> bool:
    """True if a file may set `option` twice, with the values `one` and `other`. axolotl's files often set
    4-bit loading or all linear modules under two names.
    """
    return ALL_LINEAR in (one, other) or (option == "load_in_4bit" and one == other)


def raise_all(problems: Sequence[OptionError], path: Path) -> None:
    """Raise one `OptionError` that lists all `problems` of the configuration file `path`. Do nothing if there
    are none.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise OptionError("config", f"the file {path} has {len(problems)} problems:{lines}")


def _flat(found: Mapping[object, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every option of a configuration file with its value. Options in unsloth's sections count as
    top-level options.
    """
    for name, value in found.items():
        if name in SECTIONS and isinstance(value, dict):
            yield from ((str(inner), item) for inner, item in cast("dict[object, Any]", value).items())
        else:
            yield str(name), value


def _meaning(name: str, value: Any, also: Collection[str]) -> dict[str, Any] | None:
    """Return the OneSeek option and value that a line of the configuration file stands for. None if the line
    does not affect the result. Raises `OptionError` if it is unknown or unsupported.
    """
    if name in FIXED:
        accepted, why = FIXED[name]
        if value not in accepted:
            instead = f"leave it out or use {_format_value(accepted[0])}" if accepted else "leave it out"
            raise OptionError(name, f"the value {_format_value(value)} is not supported: {why}; {instead}")
        return {}
    if name in _TRANSLATED:
        return _TRANSLATED[name](name, value)
    option = FOREIGN.get(name, name)
    if option == "target_modules":
        return {option: _targets(name, value)}
    if option == "gradient_checkpointing" and value in ("offload", "unsloth"):
        return {option: True}
    if option in OWN or option in also:
        return {option: value}
    if IDLE.fullmatch(name):
        return None
    known = sorted({*OWN, *also, *FOREIGN, *FIXED, *_TRANSLATED})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise OptionError(name, f"OneSeek has no training option of this name{hint}")


def _adapter(name: str, value: Any) -> dict[str, Any]:
    if value not in ("lora", "qlora"):
        raise OptionError(
            name, f"the adapter type {_format_value(value)} is not supported; use lora or qlora"
        )
    return {"load_in_4bit": True} if value == "qlora" else {}


def _load_in_4bit(name: str, value: Any) -> dict[str, Any]:
    return {} if value is False else {"load_in_4bit": value}


def _precision(name: str, value: Any) -> dict[str, Any]:
    if value not in (True, False, "auto"):
        raise OptionError(name, f"the value {_format_value(value)} is not allowed; use true, false or auto")
    return {"precision": "auto" if value == "auto" else "bf16" if value else "fp32"}


def _data_type(name: str, value: Any) -> dict[str, Any]:
    names = {"auto": "auto", "bfloat16": "bf16", "bf16": "bf16", "float32": "fp32", "fp32": "fp32"}
    if value not in names:
        raise OptionError(
            name, f"number format {_format_value(value)} is not supported; use auto, bfloat16 or float32"
        )
    return {"precision": names[value]}


def _datasets(name: str, value: Any) -> dict[str, Any]:
    return {"dataset": _paths(value)}


def _all_linear(name: str, value: Any) -> dict[str, Any]:
    return {"target_modules": ALL_LINEAR} if value is True else {}


def _plugins(name: str, value: Any) -> dict[str, Any] | None:
    named: list[object] = value if isinstance(value, list) else [value]
    for one in named:
        if not HARMLESS_PLUGINS.fullmatch(str(one)):
            raise OptionError(name, f"the plugin {_format_value(one)} is not supported; leave it out")
    return None


def _special_tokens(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and set(cast("dict[str, Any]", value)) <= {"pad_token"}:
        return {}
    raise OptionError(name, "training uses the base model's own special tokens; leave this option out")


_TRANSLATED: Mapping[str, Callable[[str, Any], dict[str, Any] | None]] = {
    "adapter": _adapter,
    "bf16": _precision,
    "bfloat16": _precision,
    "datasets": _datasets,
    "dtype": _data_type,
    "load_in_4bit": _load_in_4bit,
    "lora_target_linear": _all_linear,
    "plugins": _plugins,
    "special_tokens": _special_tokens,
    "torch_dtype": _data_type,
}
"""Maps each option name whose value must be converted to the function that converts it."""


def _targets(name: str, value: Any) -> Any:
    """Return the LoRA target modules in `value`, a list or a comma-separated string. `all-linear` means every
    linear module. Raises `OptionError` for a pattern.
    """
    texts: list[Any] = value if isinstance(value, list) else [value]
    for text in texts:
        if _PATTERN.search(str(text).replace(ALL_LINEAR, "")):
            raise OptionError(
                name, f"{_format_value(text)} is a pattern; list the modules by name, such as q_proj"
            )
    return value


def _paths(value: Any) -> list[str]:
    """Return the file paths in axolotl's option `datasets`. Raises `OptionError` for an entry that OneSeek
    cannot read.
    """
    entries: list[Any] = value if isinstance(value, list) else [value]
    found: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict) or "path" not in entry:
            raise OptionError(
                "datasets", f"the entry {_format_value(entry)} has no path; write - path: FILE.jsonl"
            )
        about = cast("dict[str, Any]", entry)
        for key, piece in about.items():
            if key in ("path", "type") or piece in _EMPTY or piece in _PIECES.get(key, ()):
                continue
            if key in _PIECES:
                raise OptionError(
                    f"datasets.{key}",
                    f"the value {_format_value(piece)} is not supported; "
                    f"use {_format_value(_PIECES[key][0])}",
                )
            raise OptionError(f"datasets.{key}", "data sets have no such option; give only path and type")
        if about.get("type") not in _TYPES:
            raise OptionError(
                "datasets.type",
                f"the type {_format_value(about['type'])} is unknown; use alpaca, chat_template or sharegpt",
            )
        found.append(str(about["path"]))
    return found


def _format_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else format_value(value)
