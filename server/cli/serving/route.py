"""Implements `oneseek route TEXT`, which shows the adapter that would answer a text."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from server.cli.flags import Json
from server.config.settings import ResolvedSettings
from server.config.values import SettingsError, closest

if TYPE_CHECKING:
    from routing.route import Route


def route(
    resolved: ResolvedSettings,
    text: str,
    /,
    *,
    header: str | None = None,
    model: str | None = None,
    accept_language: str | None = None,
    system: str | None = None,
    history: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: Json = False,
) -> int:
    """Show which adapter would answer a question, and why. Works without a running server.

    Parameters
    ----------
    text
        The question: the last user message.
    header
        The X-OneSeek-Adapter header: alias, alias@version, base, auto, or a blend such as sv=0.7,en=0.3.
    model
        The request's model field.
    accept_language
        The Accept-Language header.
    system
        The system prompt.
    history
        An earlier user message; repeat it for several, oldest first.
    """
    from routing.explain import explain
    from routing.route import RouteQuery, UnknownNameError
    from server.live.bases.deciding import decide
    from server.live.catalogue import open_catalogues

    catalogues = open_catalogues(resolved.settings)
    question = RouteQuery(
        header=header,
        model=model,
        turns=(*(history or ()), text),
        accept_language=accept_language,
        system=system,
    )
    try:
        place, decided = decide(question, catalogues[0].routing)
    except UnknownNameError as error:
        aliases = [alias for catalogue in catalogues for alias in catalogue.served.aliases()]
        hint = closest(error.name, [*aliases, "base", "auto", "oneseek"])
        raise SettingsError(
            error.field, f"{error.name!r} is not served here{hint}; for all names run: oneseek adapters list"
        ) from None
    base = catalogues[place].base.name
    if json:
        print(
            json_format.dumps(
                _route_to_json(decided) | ({"base": base} if len(catalogues) > 1 else {}),
                indent=2,
                ensure_ascii=False,
            )
        )
        return 0
    if len(catalogues) > 1:
        print(f"base      {base}")
    print("\n".join(explain(decided)))
    return 0


def _route_to_json(route: Route) -> dict[str, object]:
    seen = route.detection
    return {
        "adapters": [{"name": name, "weight": weight} for name, weight in route.target],
        "reason": str(route.reason),
        "language": route.language,
        "confidence": round(route.confidence, 4),
        "scores": {code: round(score, 4) for code, score in seen.scores.items()} if seen else {},
        "evidence": seen.evidence if seen else None,
        "topics": {name: round(score, 4) for name, score in route.topic.scores.items()}
        if route.topic
        else {},
    }
