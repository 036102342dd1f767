"""Read training configurations that use other trainers' names: TRL's (with PEFT's), axolotl's and unsloth's.

The tables map each name to an OneSeek option. A name that is not in them is refused. A value that asks for
something that OneSeek does not do, such as another optimizer, is refused and never ignored.
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
from adapters.training.finetune.config_tables import FIXED, FOREIGN, HARMLESS_PLUGINS, IDLE, SECTIONS
from adapters.training.loop.options import ALL_LINEAR, OptionError, TrainOptions

_RUN = (
    *("alias", "base_model", "dataset", "external_model", "force", "output", "questions", "teacher"),
    *("teacher_key_env", "teacher_model", "threads", "version"),
)
OWN = frozenset({*_RUN, *(item.name for item in fields(TrainOptions))})
"""The names of all training options of OneSeek."""

_TYPES = (None, "alpaca", "chat_template", "chat_template.default", "sharegpt")
"""Types of axolotl data sets that OneSeek reads."""
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
"""Options of an axolotl data set that OneSeek does not need. They are accepted only with these values, which
describe how OneSeek reads data.
"""
_EMPTY: tuple[object, ...] = (None, "", [], {})
"""Values that count as empty under any name."""
_PATTERN = re.compile(r"[^\w.,\s]")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The options in a configuration file."""

    options: dict[str, Any]
    """Maps each of OneSeek's names to its value as YAML has it."""
    written: dict[str, str]
    """Maps each of OneSeek's names to the name in the file."""


def read_training_config(
    path: Path, also: Collection[str] = (), passed_over: Callable[[list[str]], object] = lambda names: None
) -> ConfigFile:
    """Read OneSeek's options from the YAML file `path`, under any supported trainer's names.

    `also` are further OneSeek names. `passed_over` is called with the names that do not affect the result.
    Empty values are skipped. Raises `OptionError` that lists everything unknown, repeated or unsupported by
    its name in the file, and `OSError`.
    """
    try:
        found: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = str(error).replace("\n", " ")
        raise OptionError("config", f"{path} is not valid YAML: {problem}") from error
    if not isinstance(found, dict):
        raise OptionError("config", f"{path} does not hold a mapping of names to values")
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
                problems.append(OptionError(name, f"says the same as {said[option]} in this file; keep one"))
            if options.get(option) != ALL_LINEAR:
                said[option], options[option] = name, one
    raise_all(problems, path)
    if idle:
        passed_over(idle)
    return ConfigFile(options, said)


def _agree(option: str, one: Any, other: Any) -> bool:
    """True if two settings of the file, which map to the same OneSeek option, agree. axolotl's files often
    set qlora or all linear modules twice.
    """
    return ALL_LINEAR in (one, other) or (option == "load_in_4bit" and one == other)


def raise_all(problems: Sequence[OptionError], path: Path) -> None:
    """Raise one `OptionError` with all `problems` of the file `path`. Do nothing if there are none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise OptionError("config", f"{path} has {len(problems)} problems:{lines}")


def _flat(found: Mapping[object, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every name with its value, including those in unsloth's sections."""
    for name, value in found.items():
        if name in SECTIONS and isinstance(value, dict):
            yield from ((str(inner), item) for inner, item in cast("dict[object, Any]", value).items())
        else:
            yield str(name), value


def _meaning(name: str, value: Any, also: Collection[str]) -> dict[str, Any] | None:
    """Return OneSeek's option for one line of another tool's config; None if the line does not affect the
    result.
    """
    if name in FIXED:
        accepted, why = FIXED[name]
        if value not in accepted:
            instead = f"leave it out or use {_format_value(accepted[0])}" if accepted else "leave it out"
            raise OptionError(name, f"{_format_value(value)} is not supported: {why}; {instead}")
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
    raise OptionError(name, f"is not a training option{hint}")


def _adapter(name: str, value: Any) -> dict[str, Any]:
    if value not in ("lora", "qlora"):
        raise OptionError(name, f"{_format_value(value)} is not supported; use lora or qlora")
    return {"load_in_4bit": True} if value == "qlora" else {}


def _load_in_4bit(name: str, value: Any) -> dict[str, Any]:
    return {} if value is False else {"load_in_4bit": value}


def _precision(name: str, value: Any) -> dict[str, Any]:
    if value not in (True, False, "auto"):
        raise OptionError(name, f"{_format_value(value)} is not true, false or auto")
    return {"precision": "auto" if value == "auto" else "bf16" if value else "fp32"}


def _data_type(name: str, value: Any) -> dict[str, Any]:
    names = {"auto": "auto", "bfloat16": "bf16", "bf16": "bf16", "float32": "fp32", "fp32": "fp32"}
    if value not in names:
        raise OptionError(name, f"{_format_value(value)} is not supported; use auto, bfloat16 or float32")
    return {"precision": names[value]}


def _datasets(name: str, value: Any) -> dict[str, Any]:
    return {"dataset": _paths(value)}


def _all_linear(name: str, value: Any) -> dict[str, Any]:
    return {"target_modules": ALL_LINEAR} if value is True else {}


def _plugins(name: str, value: Any) -> dict[str, Any] | None:
    named: list[object] = value if isinstance(value, list) else [value]
    for one in named:
        if not HARMLESS_PLUGINS.fullmatch(str(one)):
            raise OptionError(name, f"{_format_value(one)} is not supported; leave it out")
    return None


def _special_tokens(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and set(cast("dict[str, Any]", value)) <= {"pad_token"}:
        return {}
    raise OptionError(name, "cannot be set, because training uses the base's own tokens; leave it out")


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
"""Names whose values must be converted, and how."""


def _targets(name: str, value: Any) -> Any:
    """Return modules from a list or a comma-separated text. `all-linear` means every linear module."""
    texts: list[Any] = value if isinstance(value, list) else [value]
    for text in texts:
        if _PATTERN.search(str(text).replace(ALL_LINEAR, "")):
            raise OptionError(name, f"{_format_value(text)} is a pattern; name the modules, such as q_proj")
    return value


def _paths(value: Any) -> list[str]:
    """Return the files in axolotl's `datasets`."""
    entries: list[Any] = value if isinstance(value, list) else [value]
    found: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict) or "path" not in entry:
            raise OptionError("datasets", f"{_format_value(entry)} has no path; write - path: FILE.jsonl")
        about = cast("dict[str, Any]", entry)
        for key, piece in about.items():
            if key in ("path", "type") or piece in _EMPTY or piece in _PIECES.get(key, ()):
                continue
            if key in _PIECES:
                problem = f"{_format_value(piece)} is not supported; use {_format_value(_PIECES[key][0])}"
                raise OptionError(f"datasets.{key}", problem)
            raise OptionError(f"datasets.{key}", "is not known here; a data set has path and type")
        if about.get("type") not in _TYPES:
            raise OptionError(
                "datasets.type",
                f"{_format_value(about['type'])} is neither alpaca, chat_template nor sharegpt",
            )
        found.append(str(about["path"]))
    return found


def _format_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else format_value(value)
