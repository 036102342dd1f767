"""Implements `oneseek adapters import` of whole folders. Prints a line for each adapter, with the reason if
it is refused.
"""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapters import names
from server.cli.adapters.registry import UNVERIFIED
from server.config.settings import Settings
from server.config.values import SettingsError, check_flag

if TYPE_CHECKING:
    from adapters.pth.bulk import ImportOutcome, NamesGiven
    from adapters.pth.folder import ImportCandidate

OLD_LEDGER = Path("ml/ledger")
"""Default path of the provenance record in an earlier OneSeek installation."""

ProvenanceFlag = Annotated[
    Path | None,
    Parameter(
        help="Provenance record of the existing installation (file or folder), whose digest goes into the "
        "ledger. Default: ml/ledger in the working directory, if it exists."
    ),
]
DryRunFlag = Annotated[
    bool, Parameter(negative="", help="Convert and check all adapters, but add none to the registry.")
]


def import_several(
    settings: Settings,
    paths: Sequence[Path],
    *,
    given: NamesGiven,
    language: str | None,
    provenance: Path | None,
    dry_run: bool,
    json: bool,
) -> int:
    """Import the adapters at `paths`. Returns the exit code: 1 if any was refused, else 0."""
    from adapters.pth.bulk import BulkImport
    from adapters.pth.folder import find_candidates
    from server.live.catalogue import open_base, open_registry

    candidates = find_candidates(paths)
    if len(candidates) > 1:
        for name in ("alias", "version", "alpha"):
            if getattr(given, name) is not None:
                raise SettingsError(
                    f"--{name}",
                    f"is for a single adapter, but the paths hold {len(candidates)}; import each adapter by "
                    "itself",
                )

    def language_of(candidate: ImportCandidate) -> str | None:
        told = candidate.language
        if told is not None:
            return language if len(candidates) == 1 else None
        if language is not None or dry_run:
            return language
        return check_flag("--language", ask_language(candidate.path, json=json), names.language)

    sources, details = provenance_of(provenance)
    run = BulkImport(
        registry=open_registry(settings),
        base=open_base(settings),
        given=replace(given, language=language_of),
        sources=sources,
        details=details,
        cache=settings.home / "cache",
        dry_run=dry_run,
    )
    rows: list[dict[str, Any]] = []
    for outcome in run.run(candidates):
        rows.append(_outcome_to_json(outcome, dry_run))
        if not json:
            _print_row(rows[-1])
    return _report(rows, dry_run=dry_run, json=json)


def provenance_of(given: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digest and the path of the provenance record that an earlier OneSeek installation kept, for
    the ledger. Empty if there is none.
    """
    from adapters.pth.provenance import ROLE, provenance_digest

    place = given or OLD_LEDGER
    if given is None and not place.exists():
        return {}, {}
    return {ROLE: provenance_digest(place)}, {ROLE: place.as_posix()}


def _outcome_to_json(outcome: ImportOutcome, dry_run: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"file": str(outcome.candidate.path)}
    found = outcome.result
    if found is None:
        return {**row, "status": "refused", "problem": outcome.problem}
    added, adapter = found.added, found.added.adapter
    warnings = list(found.warnings)
    if not added.base_recorded and added.new:
        warnings.append(UNVERIFIED)
    if adapter.language is None and added.new:
        warnings.append(
            "it has no language, so it answers only requests that name it; set one with --language CODE"
        )
    return {
        **row,
        "status": ("would import" if dry_run else "imported") if added.new else "there already",
        "name": adapter.full_name,
        "language": adapter.language,
        "digest": adapter.digest,
        "active": added.active,
        "warnings": warnings,
    }


def _print_row(row: dict[str, Any]) -> None:
    if row["status"] == "refused":
        print(f"refused        {row['problem']}", file=sys.stderr)
        return
    language = f", {row['language']}" if row["language"] else ""
    active = " (active)" if row.get("active") else ""
    print(f"{row['status']:<13}  {row['name']}{active}{language}, from {row['file']}")
    for warning in row["warnings"]:
        print(f"warning: {row['name']}: {warning}", file=sys.stderr)


def _report(rows: Sequence[dict[str, Any]], *, dry_run: bool, json: bool) -> int:
    done = "would import" if dry_run else "imported"
    counts = dict.fromkeys((done, "there already", "refused"), 0)
    for row in rows:
        counts[row["status"]] += 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items()) + "."
    if dry_run:
        summary += " Nothing was changed."
    elif waiting := [row["name"] for row in rows if row["status"] == "imported" and not row["active"]]:
        summary += f" To make a version active: oneseek adapters promote {waiting[-1]}"
    if json:
        told = {"adapters": list(rows), "counts": counts, "summary": summary}
        print(json_format.dumps(told, indent=2, ensure_ascii=False))
    else:
        print(summary)
    return 1 if counts["refused"] else 0


def ask_language(file: Path, *, json: bool) -> str | None:
    """Ask at the terminal for the language of a file that records none. Returns None if there is no
    terminal.
    """
    from adapters.pickles import told_language

    if json or not (sys.stdin.isatty() and sys.stderr.isatty()) or told_language(file) is not None:
        return None
    print(f"{file.name} does not record its language.", file=sys.stderr)
    print("Language code, such as sv (empty: requests must name the adapter): ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip() or None
