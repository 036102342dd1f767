"""Implements `oneseek distill`, which makes a data set from a teacher model's answers, and trains an adapter
on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cyclopts import App, Group

from adapters.distillation.options import DistillOptions
from adapters.training.loop.options import OptionError, TrainOptions
from server.cli.training.flags import flag, parameter, values_of, verb
from server.cli.training.train import PACKAGES
from server.config.extras import require
from server.config.schema import options_of
from server.config.values import Raw, SettingsError
from server.jobs.requests import DistillSource, TrainRequest

EPILOGUE = (
    "Each answer is saved as it comes. To continue after Ctrl-C or a crash, run the same command again; it "
    "asks only what is missing. The file of --config uses these names, or TRL's and axolotl's for training."
)
_SHARED = ("base_model", "alias", "version", "questions", "force", "threads")
_TEACHER, _FILTERS, _TRAINING = (
    Group(name, sort_key=key) for key, name in enumerate(("Teacher", "Questions and filters", "Training"), 2)
)
_OWN = (*options_of(DistillSource), *options_of(DistillOptions))
_GROUPS = (
    (_TEACHER, options_of(DistillSource)),
    (_FILTERS, options_of(DistillOptions)),
    (
        _TRAINING,
        (*(item for item in options_of(TrainRequest) if item.path in _SHARED), *options_of(TrainOptions)),
    ),
)
_OPTIONS = tuple(option for _, options in _GROUPS for option in options)


def distill(given: Mapping[str, Raw], *, config: Path | None, no_train: bool, json: bool) -> int:
    """Run a distillation. Returns 0 if the data set was made and, unless `no_train`, the adapter was
    trained.
    """
    asked_for = values_of(_OPTIONS, given, config, also=_OWN)
    values = asked_for.values
    if values.get("teacher") is None and values.get("external_model") is None:
        raise SettingsError("teacher", "is missing; give http://HOST:PORT/v1, or the folder of a model")
    if values.get("language") is None:
        raise SettingsError("language", "is missing; give --language en or --language sv")
    values["language"] = str(values["language"]).lower()
    folders = (values.get(name) or "://" for name in ("teacher", "external_model", "judge"))
    if not no_train or any("://" not in str(one) for one in folders):
        require("training, or a teacher in a folder,", "train", PACKAGES)
    from server.jobs.distillation import run_distillation as run

    def taken(kind: type) -> dict[str, Any]:
        return {item.path: values[item.path] for item in options_of(kind) if item.path in values}

    student = {name: values[name] for name in (*_SHARED, "dataset") if name in values}
    try:
        return run(
            DistillSource(**taken(DistillSource)),
            DistillOptions(**taken(DistillOptions)),
            TrainRequest(**cast("dict[str, Any]", student)),
            TrainOptions(**taken(TrainOptions)),
            no_train=no_train,
            json=json,
        )
    except (OptionError, SettingsError) as error:
        raise asked_for.located(error) from None


_OWN_FLAGS = (
    parameter("config", Path | None, None, "A YAML file with any of these options."),
    parameter("no_train", bool, False, "Make the data set only, without training."),
)
# Without version flags, since --version is its to take.
app = App(name="distill", help_epilogue=EPILOGUE, version_flags=[])
app.default(
    verb(
        "distill",
        distill,
        _OWN_FLAGS,
        [flag(option, group) for group, options in _GROUPS for option in options],
    )
)
