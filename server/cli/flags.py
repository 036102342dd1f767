"""Gives a verb the server's settings as flags, made from the settings' own schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, cast

from cyclopts import Group, Parameter

from server.config.schema import Option
from server.config.settings import OPTIONS, ResolvedSettings, resolve_settings
from server.config.values import Raw, SettingsError

P = ParamSpec("P")
Json = Annotated[bool, Parameter(negative="", show_default=False, help="Print one JSON object.")]
"""The `--json` flag of a verb."""

_SETTINGS = Group("Settings", sort_key=2)
_CONFIG_HELP = "Settings file; oneseek.yaml in the working directory if it is there."
_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[Path | None, Parameter(name="--config", help=_CONFIG_HELP)],
)
EPILOGUE = (
    "Each setting is also an environment variable and a key of oneseek.yaml: --max-queue is "
    "ONESEEK_MAX_QUEUE and max_queue, --routing-default is ONESEEK_ROUTING_DEFAULT "
    "and default under routing. Flags go before the environment, the environment before the file."
)
HIDDEN = "Takes the same settings as `oneseek serve`: flags, environment and oneseek.yaml."


def with_settings(verb: Callable[Concatenate[ResolvedSettings, P], int], *, show: bool) -> Callable[..., int]:
    """`verb` as a command: its own parameters, `--config`, and a flag for every setting.

    The flags hand over plain text, so that they pass the same checks as the environment and the file.
    Where `show` is false they work all the same, but the help leaves them out.
    """
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    by_identifier = {option.identifier: option for option in OPTIONS}

    def command(*args: object, **given: object) -> int:
        config = cast("Path | None", given.pop("config", None))
        names = [name for name in given if name in by_identifier]
        flags = {by_identifier[name].path: _raw(given.pop(name)) for name in names}
        resolved = resolve_settings(flags, config=config)
        try:
            return cast("Callable[..., int]", verb)(resolved, *args, **given)
        except SettingsError as error:
            raise resolved.located(error) from None

    parameters = [*own, _CONFIG, *(_parameter(option, show=show) for option in OPTIONS)]
    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {}
    command.__name__ = verb.__name__
    command.__doc__ = verb.__doc__
    return command


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
    """A flag's text. Of a flag that is given several times, each may hold several values as well."""
    if isinstance(value, list):
        return ",".join(cast("list[str]", value))
    return str(value).lower() if isinstance(value, bool) else cast("Raw", value)
