"""The findings of a check, each with a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from adapters.errors import FileRefusedError

Severity = Literal["ok", "warning", "fault"]
"""`ok`, `warning` (it works, but look at it) or `fault` (something does not work)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """Name of the check, such as `ledger`."""
    severity: Severity
    message: str
    remedy: str | None = None
    """The remedy: what the user should do. None if nothing is wrong."""


def ok(check: str, message: str) -> Finding:
    """A finding without a problem."""
    return Finding(check, "ok", message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """A finding that works but needs attention."""
    return Finding(check, "warning", message, remedy)


def fault(check: str, message: str, remedy: str) -> Finding:
    """A finding that something does not work."""
    return Finding(check, "fault", message, remedy)


def refused(check: str, error: FileRefusedError) -> Finding:
    """The fault for a file that cannot be used."""
    field = f" {error.field}:" if error.field else ""
    return fault(check, f"{error.path}:{field} {error.reason}", error.remedy.rstrip("."))


def worst(findings: Iterable[Finding]) -> Severity:
    """The highest severity among `findings`."""
    found = {one.severity for one in findings}
    return "fault" if "fault" in found else "warning" if "warning" in found else "ok"


def either(findings: Iterable[Finding], otherwise: Finding) -> Iterator[Finding]:
    """Return `findings`; if there are none, return only `otherwise`."""
    found = list(findings)
    yield from found or [otherwise]
