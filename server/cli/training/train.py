"""Implements `oneseek train identity`, which trains an adapter to answer as OneSeek."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cyclopts import App

from adapters.training.loop.options import OptionError, TrainOptions
from server.cli.training import pretrain
from server.cli.training.flags import GROUP, flag, parameter, values_of, verb
from server.config.extras import require
from server.config.schema import options_of
from server.config.values import Raw, SettingsError
from server.jobs.requests import TrainRequest

EPILOGUE = (
    "The file of --config uses these names, or TRL's and axolotl's; flags override it. "
    "Ctrl-C saves a checkpoint; continue with --resume. With one process on each GPU: "
    "accelerate launch -m server train identity --language sv"
)
PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "matplotlib")
_OPTIONS = (*options_of(TrainRequest), *options_of(TrainOptions))


def identity(given: Mapping[str, Raw], *, config: Path | None, resume: bool, json: bool) -> int:
    """Train an adapter that answers as OneSeek in one language, on a frozen base.

    The adapter becomes a version in the registry, ready to serve, and an entry in the ledger.
    """
    require("training", "train", PACKAGES)
    asked_for = values_of(_OPTIONS, given, config)
    values = asked_for.values
    from server.jobs.training import run_finetune

    try:
        language = values.pop("language", None)
        if language is None:
            raise SettingsError("language", "is missing; give --language en or --language sv")
        language = str(language).lower()
        names = [item.path for item in options_of(TrainRequest)]
        asked = {name: values.pop(name) for name in names if name in values}
        options = TrainOptions(language=language, **cast("dict[str, Any]", values))
        return run_finetune(TrainRequest(**cast("dict[str, Any]", asked)), options, resume=resume, json=json)
    except (OptionError, SettingsError) as error:
        raise asked_for.located(error) from None


_OWN = (
    parameter("config", Path | None, None, "A YAML file with any of these options."),
    parameter("resume", bool, False, "Continue an interrupted run with the same options and data."),
)
app = App(name="train", help="Train adapters and bases.")
# Without version flags, since --version is its to take.
app.command(
    verb("identity", identity, _OWN, [flag(option, GROUP) for option in _OPTIONS]),
    name="identity",
    help_epilogue=EPILOGUE,
    version_flags=[],
)
pretrain.add_to(app)
