"""Check the folder of a server's state: its format, the registry and the ledger. Takes no lock and writes
nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from adapters.errors import AdapterError, FileRefusedError, LedgerError
from adapters.home import check_home
from adapters.ledger import LedgerVerdict
from adapters.ledger.keys import PublicKey
from adapters.ledger.verify import judge_ledger
from adapters.lora.manifest import read_fields
from adapters.registry.listing import RegistryListing, VersionFolder
from adapters.registry.recovery import check_pointers
from server.doctor.bases import existing
from server.doctor.findings import Finding, either, fault, ok, refused, warning
from server.doctor.subject import Subject

AGAIN_SECONDS = 0.2
"""Number of seconds to wait before reading the ledger again, since another process may be writing to it."""
_VERIFY = "To check all files, run: oneseek adapters verify"


def check_home_folder(subject: Subject) -> Iterator[Finding]:
    """Check that OneSeek's home folder exists, is writable, and has a format that this release supports."""
    home = subject.settings.home
    if not home.exists():
        parent = existing(home)
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            remedy = "Give this user write permission there, or set another --home PATH (ONESEEK_HOME)"
            yield fault("home", f"{home} does not exist and cannot be created in {parent}", remedy)
            return
        yield ok("home", f"{home} does not exist yet; OneSeek creates it when it first needs it")
        return
    try:
        check_home(home)
    except FileRefusedError as error:
        yield refused("home", error)
        return
    if not home.is_dir():
        yield fault("home", f"{home} is not a folder", "Use another path with --home PATH (ONESEEK_HOME)")
    elif not os.access(home, os.W_OK):
        remedy = "Give this user write permission if you want to add or promote adapters"
        yield warning("home", f"{home} is not writable: changes to adapters fail", remedy)
    else:
        yield ok("home", str(home))


def check_registry(subject: Subject) -> Iterator[Finding]:
    """Check that the active version of each alias exists and is complete. Does not read weights."""
    registry = subject.settings.home / "registry"
    if not registry.is_dir():
        yield ok("registry", "no adapter has been added yet")
        return
    try:
        listing = RegistryListing.read(registry)
        check_pointers(listing, registry, subject.settings.home / "ledger")
    except FileRefusedError as error:
        yield refused("registry", error)
        return
    served = [entry for entry in listing.entries if not listing.is_retired(entry)]
    problems = [problem for entry in served for problem in _version(entry, active=listing.is_active(entry))]
    aliases = len({entry.alias.lower() for entry in served})
    summary = ok("registry", f"{len(served)} versions of {aliases} aliases (their weights were not read)")
    yield from either(problems, summary)


def _version(entry: VersionFolder, *, active: bool) -> Iterator[Finding]:
    severity = fault if active else warning
    if not entry.folder.is_dir():
        remedy = "Restore the folder, or promote another version of the alias"
        yield severity("registry", f"{entry.full_name}: {entry.folder} is missing", remedy)
        return
    try:
        read_fields(entry.folder)
    except AdapterError as error:
        yield severity("registry", f"{entry.full_name}: {error.reason} ({error.path.name})", _VERIFY)
        return
    missing = [
        name
        for name in ("adapter_config.json", "adapter_model.safetensors")
        if not (entry.folder / name).is_file()
    ]
    if missing:
        remedy = f"Restore the missing files. {_VERIFY}"
        yield severity("registry", f"{entry.full_name}: {', '.join(missing)} is missing", remedy)


def check_ledger(subject: Subject) -> Iterator[Finding]:
    """Check that the ledger's hashes and signatures are valid."""
    folder, settings = subject.settings.home / "ledger", subject.settings
    try:
        trusted = PublicKey.read(settings.ledger_public_key) if settings.ledger_public_key else None
        verdict = _judge(folder, trusted)
    except LedgerError as error:
        yield refused("ledger", error)
        return
    except OSError as error:
        remedy = "Check the permissions of the ledger's files"
        yield fault("ledger", f"{folder} cannot be read ({error.strerror})", remedy)
        return
    yield _verdict(verdict, required=settings.require_provenance)


def _judge(folder: Path, trusted: PublicKey | None) -> LedgerVerdict:
    verdict = judge_ledger(folder, trusted)
    if verdict.state in ("intact", "absent"):
        return verdict
    time.sleep(AGAIN_SECONDS)  # without its lock, an entry may be half written
    return judge_ledger(folder, trusted)


def _verdict(verdict: LedgerVerdict, *, required: bool) -> Finding:
    first = str(verdict.faults[0]) if verdict.faults else ""
    match verdict.state:
        case "intact":
            return ok("ledger", f"the ledger has {verdict.count} entries, all valid")
        case "absent" if verdict.folder.is_dir() and "was removed" in first:
            return fault(
                "ledger", first, "Restore the ledger, or start a new one: oneseek ledger repair --new"
            )
        case "absent" if required:
            remedy = "Add the adapters with oneseek adapters add, or set require_provenance to false"
            return fault("ledger", "the ledger is empty, but require_provenance is on", remedy)
        case "absent":
            return ok("ledger", "the ledger is empty")
        case "repairable":
            return warning(
                "ledger", f"a crash left the ledger unfinished: {first}", "Run: oneseek ledger repair"
            )
        case "tampered":
            more = f" (and {len(verdict.faults) - 1} more)" if len(verdict.faults) > 1 else ""
            remedy = (
                "Restore the ledger from a copy that verifies. To see all faults, run: oneseek ledger verify"
            )
            return fault("ledger", f"the ledger does not verify: {first}{more}", remedy)
