"""The findings of `oneseek doctor`: the result of a check, with a remedy if something is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from adapters.errors import FileRefusedError

Severity = Literal["ok", "warning", "fault"]
"""How serious a finding is: `ok`, `warning` (it works, but look at it) or `fault` (something does not
work).
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check of `oneseek doctor`."""

    check: str
    """Name of the check, such as `ledger`."""
    severity: Severity
    message: str
    remedy: str | None = None
    """What the user should do. None if nothing is wrong."""


def ok(check: str, message: str) -> Finding:
    """Return a finding that everything is right."""
    return Finding(check, "ok", message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Return a finding that something works, but needs attention."""
    return Finding(check, "warning", message, remedy)


def fault(check: str, message: str, remedy: str) -> Finding:
    """Return a finding that something does not work."""
    return Finding(check, "fault", message, remedy)


def refused(check: str, error: FileRefusedError) -> Finding:
    """Return the fault for a file that cannot be used, from the error about it."""
    field = f" {error.field}:" if error.field else ""
    return fault(check, f"{error.path}:{field} {error.reason}", error.remedy.rstrip("."))


def divided(text: str) -> tuple[str, str]:
    """Split an error message at its last semicolon into problem and remedy."""
    message, mark, remedy = text.rpartition("; ")
    return (message, remedy[:1].upper() + remedy[1:]) if mark else (text, "See docs/bases.md")


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the highest severity among `findings`."""
    found = {one.severity for one in findings}
    return "fault" if "fault" in found else "warning" if "warning" in found else "ok"


def either(findings: Iterable[Finding], otherwise: Finding) -> Iterator[Finding]:
    """Return `findings`; if there are none, return only `otherwise`."""
    found = list(findings)
    yield from found or [otherwise]
