"""Implements `oneseek train scratch` and `oneseek train continue`, which pretrain a base."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from cyclopts import App

from adapters.training.loop.options import OptionError
from adapters.training.pretrain.pretrain_options import (
    SCRATCH,
    DataPart,
    PretrainOptions,
    PretrainPlan,
    read_plan,
)
from server.cli.flags import Json
from server.cli.training.flags import GROUP, flag, parameter, raw_of
from server.config.extras import require
from server.config.schema import options_of
from server.config.values import Raw, SettingsError
from server.jobs.requests import PretrainKind, PretrainRequest

_OPTIONS = options_of(PretrainOptions)
_PACKAGES = ("torch", "transformers", "accelerate", "pyarrow", "matplotlib")
_EPILOGUE = (
    "The file of --config has these options under training, and corpora under data (path and weight){more}; "
    "flags override it. Ctrl-C saves a checkpoint; continue with --resume. On several GPUs: accelerate "
    "launch --use_fsdp --fsdp_version 2 -m server train {kind} …"
)


def add_to(kinds: App) -> None:
    """Add the verbs `scratch` and `continue` to `kinds`, the app of `oneseek train`."""
    verbs: tuple[tuple[PretrainKind, Any, str], ...] = (
        ("scratch", scratch, ", and model and tokenizer"),
        ("continue", carry_on, ""),
    )
    for kind, described, more in verbs:
        epilogue = _EPILOGUE.format(kind=kind, more=more)
        kinds.command(_command(kind, described), name=kind, help_epilogue=epilogue)


def scratch() -> None:
    """Train a new base from scratch: architecture, tokenizer, and all weights.

    The result is a folder in Hugging Face layout that OneSeek serves, and an entry in the ledger.
    """


def carry_on() -> None:
    """Train all weights of an existing base further on text, typically after `oneseek merge`.

    Tokenizer and chat template are copied. The result is a new folder and an entry in the ledger.
    """


def _run(kind: PretrainKind, given: Mapping[str, object]) -> int:
    require("training", "train", _PACKAGES)
    flags = dict(given)
    config = cast("Path | None", flags.pop("config", None))
    data = tuple(DataPart.read(text) for text in cast("list[str] | None", flags.pop("data", None)) or ())
    output = cast("Path | None", flags.pop("output", None))
    base_model = cast("Path | None", flags.pop("base_model", None))
    resume, json = (bool(flags.pop(name, False)) for name in ("resume", "json"))
    from server.jobs.pretraining import run_pretrain

    plan = PretrainPlan(training={})
    try:
        if config is not None:
            plan = read_plan(config, scratch=kind == "scratch")
        if output is None:
            raise SettingsError("output", "is missing; give a folder that does not exist yet")
        options = _options(kind, plan, config, flags)
        asked = PretrainRequest(
            kind=kind,
            plan=plan,
            data=data or plan.data,
            output=output,
            base_model=base_model,
            resume=resume,
            json=json,
        )
        return run_pretrain(asked, options)
    except (OptionError, SettingsError) as error:
        raise _located(error, plan, config, flags) from None


def _located(
    error: OptionError | SettingsError, plan: PretrainPlan, config: Path | None, flags: Mapping[str, object]
) -> SettingsError:
    """Return `error` with the key in the config file and that file's path, if the option's value comes from
    there.
    """
    origin = error.origin if isinstance(error, SettingsError) else None
    from_file = (
        error.name in plan.training and flags.get(error.name) is None and origin in (None, str(config))
    )
    if from_file:
        return SettingsError(f"training.{error.name}", error.problem, str(config))
    return SettingsError(error.name, error.problem, origin)


def _options(
    kind: PretrainKind, plan: PretrainPlan, config: Path | None, flags: Mapping[str, object]
) -> PretrainOptions:
    """Return all options of a pre-training. Flags take precedence over the config file, and both over the
    verb's defaults.
    """
    raw: dict[str, tuple[Raw, str]] = {
        name: (raw_of(value), str(config)) for name, value in plan.training.items() if value is not None
    }
    raw |= {name: (raw_of(value), "flag") for name, value in flags.items() if value is not None}
    if "steps" in flags and flags["steps"] is not None:
        raw.pop("tokens", None)
    elif flags.get("tokens") is not None:
        raw.pop("steps", None)
    values: dict[str, Any] = dict(SCRATCH) if kind == "scratch" else {}
    values |= {item.path: item.parse(*raw[item.path]) for item in _OPTIONS if item.path in raw}
    return PretrainOptions(**values)


def _command(kind: PretrainKind, described: Any) -> Any:
    def command(**given: object) -> int:
        return _run(kind, given)

    several = (
        "Training text: .txt, .jsonl (.gz, .zst) or .parquet, or folders of them. PATH=WEIGHT sets its share."
    )
    parameters = [
        parameter("config", Path | None, None, "A YAML file with options, corpora and a model."),
        parameter("data", list[str] | None, None, several),
        parameter("output", Path | None, None, "New folder for the base."),
        parameter("resume", bool, False, "Continue an interrupted run with the same options and data."),
        inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
    ]
    if kind == "continue":
        parameters.insert(
            0, parameter("base_model", Path | None, None, "Folder of the base to train further.")
        )
    defaults = SCRATCH if kind == "scratch" else {}
    options = [
        replace(option, default=defaults.get(option.path, option.default), optional=True)
        for option in _OPTIONS
    ]
    parameters += [flag(option, GROUP) for option in options]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {}
    command.__name__, command.__doc__ = kind, described.__doc__
    return command
