"""Gives a verb of the command line a flag for each of the server's settings, generated from the settings
classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, cast

from cyclopts import Group, Parameter

from server.config.environment import expand_home, process_environment
from server.config.schema import Option
from server.config.settings import (
    OPTIONS,
    PREFIX,
    ResolvedSettings,
    Settings,
    default_home,
    resolve_settings,
)
from server.config.values import Raw, SettingsError

P = ParamSpec("P")
Json = Annotated[bool, Parameter(negative="", show_default=False, help="Print the result as JSON.")]
"""The `--json` flag of a verb."""

_SETTINGS = Group("Settings", sort_key=2)
_CONFIG_HELP = "Settings file. Default: oneseek.yaml in the working directory, if it exists."
_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[Path | None, Parameter(name="--config", help=_CONFIG_HELP)],
)
EPILOGUE = (
    "Each setting is also an environment variable and a key of oneseek.yaml: --max-queue is "
    "ONESEEK_MAX_QUEUE and max_queue; --routing-default is ONESEEK_ROUTING_DEFAULT "
    "and default under routing. Flags override the environment, and the environment overrides the file."
)
HIDDEN = "Also takes the settings of `oneseek serve`, as flags, environment variables or in oneseek.yaml."


def with_settings(verb: Callable[Concatenate[ResolvedSettings, P], int], *, show: bool) -> Callable[..., int]:
    """Return the function `verb` as a command with its own parameters, `--config`, and a flag for every
    setting.

    Flags pass their values on as text, so that these get the same checks as values from the environment and
    the file. If `show` is false, the help does not list the settings' flags, but they work.
    """

    def run(flags: Mapping[str, Raw], config: Path | None, *args: object, **given: object) -> int:
        resolved = resolve_settings(flags, config=config)
        try:
            return cast("Callable[..., int]", verb)(resolved, *args, **given)
        except SettingsError as error:
            raise resolved.located(error) from None

    return _command(run, verb, own_from=1, show=show)


def with_any_settings(
    verb: Callable[Concatenate[ResolvedSettings, SettingsError | None, Path | None, P], int],
) -> Callable[..., int]:
    """Return a command for a verb that must also run with invalid settings. Then it gets the default settings
    and the error.

    The verb also gets the path given by `--config`.
    """

    def run(flags: Mapping[str, Raw], config: Path | None, *args: object, **given: object) -> int:
        error: SettingsError | None = None
        try:
            resolved = resolve_settings(flags, config=config)
        except SettingsError as problem:
            resolved, error = default_settings(flags), problem
        return cast("Callable[..., int]", verb)(resolved, error, config, *args, **given)

    return _command(run, verb, own_from=3, show=False)


def default_settings(flags: Mapping[str, Raw]) -> ResolvedSettings:
    """Return the default settings, except for the home that `flags` or the environment give."""
    environ = process_environment()
    named = flags.get("home") or environ.get(f"{PREFIX}HOME")
    home = expand_home(named, environ) if isinstance(named, str) else default_home(environ)
    return ResolvedSettings(replace(Settings(), home=home), {})


def _command(
    run: Callable[..., int], verb: Callable[..., int], *, own_from: int, show: bool
) -> Callable[..., int]:
    """Return a command that calls `run` with the settings' flags (by option path), `--config`, and the verb's
    own parameters.
    """
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[own_from:]
    by_identifier = {option.identifier: option for option in OPTIONS}

    def command(*args: object, **given: object) -> int:
        config = cast("Path | None", given.pop("config", None))
        names = [name for name in given if name in by_identifier]
        flags = {by_identifier[name].path: _raw(given.pop(name)) for name in names}
        return run(flags, config, *args, **given)

    parameters = [*own, _CONFIG, *_parameters(show=show)]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {}
    command.__name__ = verb.__name__
    command.__doc__ = verb.__doc__
    return command


@cache
def _parameters(*, show: bool) -> tuple[inspect.Parameter, ...]:
    """A parameter for each setting's flag. Made once for all verbs, since each takes a tenth of a millisecond
    to make.
    """
    return tuple(_parameter(option, show=show) for option in OPTIONS)


def _parameter(option: Option, *, show: bool) -> inspect.Parameter:
    kind: object = str
    if option.many:
        kind = list[str]
    elif option.hint is bool:
        kind = bool
    parameter = Parameter(
        name=option.flag,
        group=_SETTINGS,
        help=option.explained,
        show=show,
        show_default=False if option.many or option.default is None else option.render(option.default),
        metavar=option.metavar,
        negative_iterable="",
        allow_leading_hyphen=True,
    )
    return inspect.Parameter(
        option.identifier,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, parameter],  # pyright: ignore[reportOperatorIssue] `kind` is a type here
    )


def _raw(value: object) -> Raw:
    """Return a flag's value as text. The values of a repeated flag are joined by commas."""
    if isinstance(value, list):
        return ",".join(cast("list[str]", value))
    return str(value).lower() if isinstance(value, bool) else cast("Raw", value)
