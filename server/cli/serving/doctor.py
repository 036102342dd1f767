"""Implements `oneseek doctor`, which checks the installation."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.flags import Json
from server.config.environment import expand_home, home_folder, process_environment
from server.config.settings import CONFIG_FILE, CONFIG_VARIABLE, ResolvedSettings
from server.config.values import SettingsError

if TYPE_CHECKING:
    from server.doctor.findings import Finding

MARKS = {"ok": "ok", "warning": "WARNING", "fault": "FAULT"}


def doctor(
    resolved: ResolvedSettings, error: SettingsError | None, config: Path | None, *, json: Json = False
) -> int:
    """Check this installation as `oneseek serve` would find it, with a remedy for each problem.

    Changes nothing, and also runs if the settings are invalid. The exit code is 1 if there is a fault;
    warnings do not count. You can paste the output of `--json` into a bug report: it contains no keys and no
    prompts.
    """
    from server.config.version import oneseek_version
    from server.doctor.examine import examine
    from server.doctor.findings import worst
    from server.doctor.subject import Subject

    environ = process_environment()
    named = config or expand_home(environ.get(CONFIG_VARIABLE) or CONFIG_FILE, environ)
    subject = Subject(resolved, error, environ, Path.cwd(), named)
    found: list[Finding] = []
    for finding in examine(subject):
        found.append(finding)
        if not json:
            _show(finding, sys.stdout.isatty())
    severity = worst(found)
    if json:
        rows = [_to_json(finding) for finding in found]
        report = {"version": oneseek_version(), "verdict": severity, "findings": rows}
        print(json_format.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(f"\n{_summary(found)}")
    return 1 if severity == "fault" else 0


def _show(finding: Finding, live: bool) -> None:
    print(f"{MARKS[finding.severity]:<8}{finding.check:<10} {_shortened(finding.message)}", flush=live)
    if finding.remedy is not None:
        print(f"{'':<19}{_shortened(finding.remedy)}.", flush=live)


def _to_json(finding: Finding) -> dict[str, str | None]:
    remedy = finding.remedy and _shortened(finding.remedy)
    return {
        "check": finding.check,
        "severity": finding.severity,
        "message": _shortened(finding.message),
        "remedy": remedy,
    }


def _summary(found: Iterable[Finding]) -> str:
    severities = [finding.severity for finding in found]
    faults, warnings = severities.count("fault"), severities.count("warning")
    if not faults and not warnings:
        return "No problems found."
    shown = [f"{faults} fault{'s' * (faults != 1)}"] if faults else ["no fault"]
    shown += [f"{warnings} warning{'s' * (warnings != 1)}"] if warnings else []
    return ", ".join(shown) + "."


def _shortened(text: str) -> str:
    """Return `text` with the user's home folder replaced by `~`, so that a bug report does not show the
    user's name.
    """
    folder = str(home_folder())
    return text.replace(folder, "~") if len(folder) > 1 else text
