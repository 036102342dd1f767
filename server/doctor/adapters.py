"""Check the adapters that the settings list, besides those in the registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from adapters.errors import BaseModelError, FileRefusedError
from adapters.registry.discovery.adapter_folder import ServedBase
from adapters.registry.discovery.finder import read_named
from adapters.remote.pins import names_url
from server.config.each_base import each_base
from server.doctor.bases import chosen_base
from server.doctor.findings import Finding, either, fault, ok, refused
from server.doctor.subject import Subject
from server.live.discovery import expand_entry


def check_adapters(subject: Subject) -> Iterator[Finding]:
    """Check that each adapter in the setting `adapters` exists and fits its base. Fetches none from a URL."""
    listed: list[tuple[str, Sequence[ServedBase]]] = []
    bases: list[ServedBase] = []
    for own in each_base(subject.settings):
        with suppress(BaseModelError):  # said by the check of the bases
            bases.append(ServedBase.read(chosen_base(subject, own)))
            listed += [(entry, bases[-1:]) for entry in own.settings.adapters]
    if subject.settings.bases and bases:
        listed += [(entry, bases) for entry in subject.settings.adapters]
    folders = [(expand_entry(entry), fitting) for entry, fitting in listed if not names_url(entry)]
    problems = [found for entry, fitting in folders if (found := _problem(entry, fitting)) is not None]
    fetched = len(listed) - len(folders)
    more = f", and {fetched} that a server fetches if needed" if fetched else ""
    yield from either(problems, ok("adapters", f"the settings list {len(folders)} folders{more}"))


def _problem(entry: str, bases: Sequence[ServedBase]) -> Finding | None:
    """Return the fault if none of `bases` can serve the adapter that `entry` names; else None."""
    problem: Finding | None = None
    for base in bases:
        try:
            read_named(entry, base)
        except FileRefusedError as error:
            problem = refused("adapters", error)
        except ValueError as error:
            problem = fault("adapters", f"{entry}: {error}", "Correct this entry of the setting adapters")
        else:
            return None
    return problem
