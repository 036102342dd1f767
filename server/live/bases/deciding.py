"""Chooses the base for a question if a server has several: by the requested name, else by the detected
language.
"""

from __future__ import annotations

from dataclasses import replace

from routing.route import MODEL, Route, RouteQuery, UnknownNameError, named_choice
from routing.selection import HEADER, SelectionError, is_automatic, parse_selection, split_base
from server.live.bases.languages import LanguageRouting, ServedNames


def decide(question: RouteQuery, routing: LanguageRouting) -> tuple[int, Route]:
    """Return the index of the base that answers, and the route: which adapter answers, and why.

    Raises `UnknownNameError`, `SelectionError`, and `SettingsError` if the routers cannot be made.
    """
    known = routing.names()
    index, question = named_base(question, known)
    if index is not None:
        return index, routing.own(index).decide(question, known.snapshots[index])
    route = routing.server.decide(question, known)
    return owner_of(route, known), route


def named_base(question: RouteQuery, known: ServedNames) -> tuple[int | None, RouteQuery]:
    """Return the index of the base that the header `X-OneSeek-Adapter` or the field `model` names, and the
    question for that base's router.

    The header takes precedence. The index is None if neither names a base or adapter. Raises
    `UnknownNameError`, and `SelectionError` for a blend of adapters on several bases.
    """
    index = None if question.model is None else asked_base(question.model, MODEL, known)
    if question.header is None:
        meant = None if question.model is None else known.meaning(question.model)
        return index, replace(question, model=meant)
    # The model is known by one of the bases, and does not decide.
    header = known.meaning(question.header)
    return asked_base(question.header, HEADER, known), replace(question, header=header, model=None)


def owner_of(route: Route, known: ServedNames) -> int:
    """Return the index of the base to which `route`, chosen among all bases, leads."""
    index = known.index_of(route.target[0][0]) if route.target else known.base_of(route.base or "base")
    return index or 0


def asked_base(asked: str, field: str, known: ServedNames) -> int | None:
    """Return the index of the base of the requested adapter or blend `asked`; None if `asked` is `auto`.

    Raises `UnknownNameError`, and `SelectionError` for a blend of adapters on several bases.
    """
    try:
        chosen = parse_selection(asked, field)
    except SelectionError:
        named_choice(asked, field, known)  # which raises what fits
        raise
    if chosen == "auto":
        return None
    if not chosen:
        return 0
    places: dict[int | None, str] = {}
    for name, _ in chosen:
        base, rest = split_base(name)
        if base is None and is_automatic(rest):
            return None
        place = place_of(name, known)
        if place is None:
            raise UnknownNameError(name, field)
        places.setdefault(place, name)
    if len(places) > 1:
        listed = " and ".join(
            f"{name} on {known.snapshots[place].base_name}"
            for place, name in places.items()
            if place is not None
        )
        raise SelectionError(
            asked, f"all adapters of a blend must be on one base, but this blend has {listed}", field
        )
    return next(iter(places))


def place_of(name: str, known: ServedNames) -> int | None:
    """Return the index of the base that serves `name`, the name of one adapter or base; None if no base
    does.
    """
    base, rest = split_base(name)
    if base is None:
        return known.index_of(rest)
    index = known.named_base(base)
    if index is None:
        return None
    names = known.snapshots[index]
    return index if is_automatic(rest) or names.is_adapter(rest) or names.is_base(rest) else None
