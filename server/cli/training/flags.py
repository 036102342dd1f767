"""Flags and config files for the verbs that train models, generated from the classes that hold their
options.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from cyclopts import Group, Parameter

from adapters.training.loop.options import OptionError
from server.cli.flags import Json
from server.config.schema import Option
from server.config.values import Raw, SettingsError

GROUP = Group("Training", sort_key=2)


@dataclass(frozen=True, slots=True)
class GivenOptions:
    """The options that the user gave as flags or in a config file."""

    values: dict[str, object]
    """Maps each option name to its value, from the flags and the config file. Flags take precedence."""
    written: Mapping[str, str]
    """Maps each option that comes from the config file to the name that it has in the file."""
    config: Path | None

    def located(self, error: OptionError | SettingsError) -> SettingsError:
        """Return `error` with the option's name in the config file and that file's path, if its value comes
        from there.
        """
        origin = error.origin if isinstance(error, SettingsError) else None
        if error.name in self.written and origin is None:
            return SettingsError(self.written[error.name], error.problem, str(self.config))
        return SettingsError(error.name, error.problem, origin)


def values_of(
    options: Sequence[Option], given: Mapping[str, Raw], config: Path | None, *, also: Sequence[Option] = ()
) -> GivenOptions:
    """Return the values of those `options` that the user has set as flags or in the config file.

    `also` are those of `options` that only this command has, not `oneseek train identity`; the config file
    may set them too. Raises `SettingsError`.
    """
    raw: dict[str, tuple[Raw, str]] = {}
    written: Mapping[str, str] = {}
    known = {item.path: item for item in options}
    if config is not None:
        raw, written = _raw_of_file(config, known, also, given)
    raw |= {name: (value, "flag") for name, value in given.items()}
    values = {name: item.parse(*raw[name]) for name, item in known.items() if name in raw}
    return GivenOptions(values, {name: word for name, word in written.items() if name not in given}, config)


def _raw_of_file(
    config: Path, known: Mapping[str, Option], also: Sequence[Option], given: Mapping[str, Raw]
) -> tuple[dict[str, tuple[Raw, str]], Mapping[str, str]]:
    """Return the values of the options in the config file as text, and their names in the file. Raises
    `SettingsError` that lists everything wrong in the file.
    """
    from adapters.training.finetune.config_names import raise_all, read_training_config

    try:
        found = read_training_config(config, frozenset(item.path for item in also), _print_passed_over)
        raw = {name: (raw_of(value), str(config)) for name, value in found.options.items()}
        problems: list[OptionError] = []
        for name, (value, _) in raw.items():
            try:
                if name not in known:
                    raise SettingsError(name, "is not an option of this command; remove it")
                if name not in given:
                    known[name].parse(value, "")
            except SettingsError as error:
                problems.append(OptionError(found.written[name], error.problem))
        raise_all(problems, config)
    except OptionError as error:
        raise SettingsError(error.name, error.problem, str(config)) from None
    return raw, found.written


def _print_passed_over(names: list[str]) -> None:
    print(f"oneseek: ignored, since the adapter does not depend on it: {', '.join(names)}", file=sys.stderr)


def raw_of(value: object) -> Raw:
    """Return a value from YAML or from a flag as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return [str(item) for item in cast("list[object]", value)] if isinstance(value, list) else str(value)


def verb(
    name: str, run: Callable[..., int], own: Sequence[inspect.Parameter], flags: Sequence[inspect.Parameter]
) -> Callable[..., int]:
    """Return a verb with the parameters `own`, `--json` and `flags`. It calls `run` with the flags that were
    set.
    """
    own = (*own, inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json))

    def made(**given: object) -> int:
        fixed = {parameter.name: given.pop(parameter.name, parameter.default) for parameter in own}
        return run({name: raw_of(value) for name, value in given.items() if value is not None}, **fixed)

    vars(made)["__signature__"] = inspect.Signature([*own, *flags])
    made.__annotations__ = {}
    made.__name__, made.__doc__ = name, run.__doc__
    return made


def parameter(name: str, kind: object, default: object, text: str) -> inspect.Parameter:
    """Return the command-line parameter for a flag of the verb itself, which is not a training option."""
    many = Parameter(help=text, negative="", show_default=False, consume_multiple=True, negative_iterable="")
    one = Parameter(help=text, negative="", show_default=False)
    annotation = Annotated[kind, many if kind == list[str] | None else one]  # pyright: ignore[reportInvalidTypeForm] `kind` is a type here
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def flag(option: Option, group: Group) -> inspect.Parameter:
    """Return the command-line parameter for the flag that sets `option`, with its help text."""
    kind: object = list[str] if option.many else bool if option.hint is bool else str
    parameter = Parameter(
        name=option.flag,
        group=group,
        help=option.explained,
        show_default=False if option.default in (None, ()) else option.render(option.default),
        metavar=option.metavar,
        negative_iterable="",
        consume_multiple=option.many,
    )
    return inspect.Parameter(
        option.identifier,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, parameter],  # pyright: ignore[reportOperatorIssue] `kind` is a type here
    )
