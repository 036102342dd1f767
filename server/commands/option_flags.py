"""Flags of verbs whose options are a dataclass: one for each field, handing over plain text."""

from __future__ import annotations

import inspect
from typing import Annotated, cast

from cyclopts import Group, Parameter

from server.options import Option
from server.values import Raw

_GROUP = Group("Training", sort_key=2)


def plain(value: object) -> Raw:
    """A value of YAML, or of a flag, as the text that stands for it."""
    if isinstance(value, bool):
        return str(value).lower()
    return [str(item) for item in cast("list[object]", value)] if isinstance(value, list) else str(value)


def own(name: str, kind: object, default: object, text: str) -> inspect.Parameter:
    """A parameter of the verb itself."""
    many = Parameter(help=text, negative="", show_default=False, consume_multiple=True, negative_iterable="")
    one = Parameter(help=text, negative="", show_default=False)
    annotation = Annotated[kind, many if kind == list[str] | None else one]  # pyright: ignore[reportInvalidTypeForm] `kind` is a type here
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def flag(option: Option) -> inspect.Parameter:
    """The flag of an option."""
    kind: object = list[str] if option.many else bool if option.hint is bool else str
    parameter = Parameter(
        name=option.flag,
        group=_GROUP,
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
