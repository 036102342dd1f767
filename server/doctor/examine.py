"""Run every check of `oneseek doctor`. If a check itself raises an error, report that as a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from server.doctor.access import check_files, check_keys, check_port
from server.doctor.adapters import check_adapters
from server.doctor.bases import check_bases, check_providers
from server.doctor.export import check_telemetry
from server.doctor.findings import Finding, fault, ok, warning
from server.doctor.gpus import check_gpus
from server.doctor.machine import check_clock, check_limits, check_packages, check_python
from server.doctor.state import check_home_folder, check_ledger, check_registry
from server.doctor.subject import Subject

DoctorCheck = Callable[[Subject], Iterator[Finding]]


def check_settings(subject: Subject) -> Iterator[Finding]:
    """Check that the settings are valid, and report the warnings about them that a server shows at its
    start.
    """
    if subject.error is not None:
        where = f" ({subject.error.origin})" if subject.error.origin else ""
        yield fault(
            "settings",
            f"{subject.error.name}: {subject.error.problem}{where}",
            "Correct this setting. Until then, all other checks use the default settings",
        )
        return
    given = sum(origin != "default" for origin in subject.resolved.origins.values())
    yield ok(
        "settings", f"{given} settings are set, all others have their defaults; to list all: oneseek config"
    )
    for line in subject.settings.warnings:
        if "api_keys" not in line:  # said by the keys' own check
            yield warning("settings", line, "To list all settings, run: oneseek config")


CHECKS: tuple[tuple[str, DoctorCheck], ...] = (
    ("settings", check_settings),
    ("python", check_python),
    ("packages", check_packages),
    ("providers", check_providers),
    ("gpu", check_gpus),
    ("bases", check_bases),
    ("port", check_port),
    ("home", check_home_folder),
    ("registry", check_registry),
    ("adapters", check_adapters),
    ("ledger", check_ledger),
    ("clock", check_clock),
    ("limits", check_limits),
    ("keys", check_keys),
    ("files", check_files),
    ("telemetry", check_telemetry),
)
"""Each check's name and function, in the order of the report."""


def examine(subject: Subject) -> Iterator[Finding]:
    """Run all checks. Yields each finding as soon as it is made."""
    for name, check in CHECKS:
        try:
            yield from check(subject)
        except Exception as error:
            message = f"this check of oneseek doctor failed: {type(error).__name__}: {error}"
            yield fault(
                name, message, "Fix the cause if the error shows it; else report this as a bug of OneSeek"
            )
