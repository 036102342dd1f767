"""`oneseek train identity`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cyclopts import App, Group

from adapters.training.options import OptionError, TrainOptions
from server.commands.flags import Json
from server.commands.training_flags import flag, parameter, raw_of, values_of
from server.extras import require
from server.options import options_of
from server.values import Raw, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run is asked for beside its `TrainOptions`."""

    base_model: Path | None = None
    """Folder of the base in Hugging Face layout; none looks in the usual places."""
    dataset: tuple[str, ...] = ()
    """JSON lines, {"instruction", "input", "output"} or {"messages": [...]}; none takes OneSeek's own."""
    external_model: str | None = None
    """A teacher that writes further answers: http://HOST:PORT#MODEL of an OpenAI-like server, or a folder."""
    alias: str | None = None
    """Public name of the adapter; none takes the one that fits the base and the language."""
    version: str | None = None
    """Such as v1.1; none takes the next free one."""
    output: Path | None = None
    """A new folder for the adapter, in place of the registry."""


EPILOGUE = (
    "The file of --config takes these names, and TRL's and axolotl's for the same; flags go before it. "
    "Ctrl-C saves a checkpoint, and --resume goes on from it. One process on each GPU: "
    "accelerate launch -m server train identity --language sv"
)
PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "matplotlib")
_GROUP = Group("Training", sort_key=2)
_OPTIONS = (*options_of(Asked), *options_of(TrainOptions))


def add_to(app: App) -> None:
    """Add `train` and its kinds to `app`."""
    kinds = App(name="train", help="Make adapters.")
    # Without version flags, since --version is its to take.
    kinds.command(_command(), name="identity", help_epilogue=EPILOGUE, version_flags=[])
    app.command(kinds)


def identity(given: Mapping[str, Raw], *, config: Path | None, resume: bool, json: bool) -> int:
    """Train an adapter that answers as OneSeek, in one language, on a frozen base.

    What is made becomes a version in the registry, ready to serve, and an entry in the ledger.
    """
    require("training", "train", PACKAGES)
    values = values_of(_OPTIONS, given, config)
    from server.training import train

    try:
        language = values.pop("language", None)
        if language is None:
            raise SettingsError("language", "is missing; say --language en or --language sv")
        own = {name: values.pop(name) for name in [item.path for item in options_of(Asked)] if name in values}
        options = TrainOptions(language=cast("str", language), **cast("dict[str, Any]", values))
        return train(Asked(**cast("dict[str, Any]", own)), options, resume=resume, json=json)
    except OptionError as error:
        raise SettingsError(error.name, error.problem) from None


def _command() -> Any:
    """`identity` with a flag for each option."""

    def command(
        *, config: Path | None = None, resume: bool = False, json: bool = False, **given: object
    ) -> int:
        flags = {name: raw_of(value) for name, value in given.items() if value is not None}
        return identity(flags, config=config, resume=resume, json=json)

    own = [
        parameter("config", Path | None, None, "A YAML file with any of these options."),
        parameter("resume", bool, False, "Go on with the interrupted run of the same options and data."),
        inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
    ]
    parameters = [*own, *(flag(option, _GROUP) for option in _OPTIONS)]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {}
    command.__name__, command.__doc__ = "identity", identity.__doc__
    return command
