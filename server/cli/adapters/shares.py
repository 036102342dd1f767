"""Implements `oneseek adapters canary`, `shadow` and `settle`, which divide requests between versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapters.numerals import parse_number
from server.cli.adapters.registry import report
from server.cli.flags import Json
from server.config.settings import ResolvedSettings, Settings
from server.config.values import SettingsError

if TYPE_CHECKING:
    from adapters.registry.pointers import AliasState
    from adapters.registry.registry import ShareChange


def canary(resolved: ResolvedSettings, alias: str, /, *shares: str, json: Json = False) -> int:
    """Split an alias's requests among versions, such as v1.1=90 v1.2=10. A conversation keeps its version.

    A running server applies the split without a restart, and ends it if a canary fails more often or is
    slower than the active version.

    Parameters
    ----------
    alias
        The alias, or a language such as sv if exactly one alias answers it.
    shares
        VERSION=PERCENT for each version, including the active one. The percentages must add up to 100.
    """
    from server.live.catalogue import open_registry

    settings = resolved.settings
    divided = open_registry(settings).canary(_meant(settings, alias), _shares(shares))
    return _report(divided, json=json)


def shadow(
    resolved: ResolvedSettings,
    name: str,
    /,
    *,
    share: Annotated[float, Parameter(help="Percentage of the alias's requests that are copied to it.")],
    json: Json = False,
) -> int:
    """Send copies of requests to a version to measure its latency and errors. Clients never see its answers.

    Parameters
    ----------
    name
        The version, as ALIAS@VERSION.
    """
    from server.live.catalogue import open_registry

    settings = resolved.settings
    return _report(open_registry(settings).shadow(_meant(settings, name), share), json=json)


def settle(
    resolved: ResolvedSettings,
    alias: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Reason to record in the ledger.")] = "",
    json: Json = False,
) -> int:
    """End an alias's canaries and shadow: its active version answers all of its requests again.

    Parameters
    ----------
    alias
        The alias, or a language such as sv if exactly one alias answers it.
    """
    from server.live.catalogue import open_registry

    settings = resolved.settings
    return _report(open_registry(settings).settle(_meant(settings, alias), reason), json=json)


def change_to_json(state: AliasState) -> dict[str, Any]:
    """Return how an alias's requests are divided between its versions, as JSON."""
    from adapters.registry.traffic import shares_to_json

    return shares_to_json(state.split, state.shadow)


def _meant(settings: Settings, name: str) -> str:
    """Return `name` with a language code replaced by its alias from the settings, unless an alias has that
    name.
    """
    from server.live.catalogue import open_registry

    before, at, after = name.partition("@")
    if open_registry(settings).listing().versions(before.strip()):
        return name
    return settings.routing.languages.get(before.lower(), before) + at + after


def _shares(given: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in given:
        version, equals, percent = item.partition("=")
        try:
            share = parse_number(percent.removesuffix("%"))
        except ValueError:
            raise SettingsError(
                "shares", f"{item!r} is not of the form VERSION=PERCENT; use one such as v1.2=10"
            ) from None
        if not equals or version in found:
            raise SettingsError("shares", f"{item!r} names {version} twice; give each version one percentage")
        found[version] = share
    if not found:
        raise SettingsError("shares", "are missing; use VERSION=PERCENT, such as v1.1=90 v1.2=10")
    return found


def _report(divided: ShareChange, *, json: bool) -> int:
    from adapters.registry.traffic import format_shares

    active, told = divided.active, format_shares(divided.after.split, divided.after.shadow)
    if divided.record is None:
        summary = f"Requests for {active.alias} are not divided: {active.version} already gets all of them."
    elif told:
        summary = f"Requests for {active.alias} are divided: {told}."
    else:
        summary = f"All requests for {active.alias} now go to {active.version}."
    shown = {"alias": active.alias, "active": active.version, **change_to_json(divided.after)}
    return report({**shown, "before": change_to_json(divided.before)}, summary, json=json)
