"""Check the machine and its Python: versions, packages, memory, the clock, and the system's limits."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from adapters.ledger import Ledger
from adapters.ledger.chain import LEDGER_FILE
from adapters.numerals import parse_integer
from server.asgi.http.descriptors import SPARE
from server.config.version import version_line
from server.doctor.findings import Finding, either, fault, ok, warning
from server.doctor.subject import Subject

RELEASED = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""Unix time of this release. A clock that shows an earlier time is wrong."""
AHEAD_SECONDS = 300.0
"""Number of seconds that the ledger's last entry may lie in the future before the clock counts as wrong."""
LEAST_THREADS = 64
"""Number of threads and processes that a server needs besides compute threads, such as ONNX Runtime's."""
CGROUP = Path("/sys/fs/cgroup")


def check_python(_subject: Subject) -> Iterator[Finding]:
    """Report the OneSeek release, the Python interpreter and the operating system."""
    bits = 64 if sys.maxsize > 2**32 else 32
    python = f"{platform.python_implementation()} {platform.python_version()}, {bits} bits"
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    shown = f"OneSeek {version_line()}; {python}, on {system}"
    if bits != 64:
        yield fault("python", shown, "Install a 64-bit Python 3.11 or later, and install OneSeek there")
        return
    yield ok("python", shown)


def check_packages(_subject: Subject) -> Iterator[Finding]:
    """Check that all packages that serving needs are installed."""
    missing = [name for name in required() if not _installed(name)]
    remedy = f"Run: {Path(sys.executable).name} -m pip install {' '.join(missing)}"
    problems = [fault("packages", f"missing packages: {', '.join(missing)}", remedy)] if missing else []
    yield from either(problems, ok("packages", "all packages that serving needs are installed"))


def required() -> list[str]:
    """Return the names of the packages that OneSeek requires on this platform, without extras."""
    try:
        lines = importlib.metadata.requires("oneseek") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder
        return []
    found: list[str] = []
    for line in lines:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        _, _, marker = line.partition(";")
        elsewhere = {"!=": sys.platform == "win32", "==": sys.platform != "win32"}
        condition = re.search(r"sys_platform\s*(==|!=)\s*[\"']win32[\"']", marker)
        if "extra ==" in marker or name is None or (condition and elsewhere[condition[1]]):
            continue
        found.append(name[0])
    return found


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_clock(subject: Subject) -> Iterator[Finding]:
    """Check that the machine's clock is plausible. Certificates, signatures and logs depend on it."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    remedy = "Set the clock, or enable time synchronization (on Linux: timedatectl set-ntp true)"
    if now < RELEASED:
        yield fault("clock", f"the clock shows {shown}, which is before this release was made", remedy)
        return
    last = _last_entry(subject.settings.home / "ledger")
    if last is not None and last > now + AHEAD_SECONDS:
        ahead = datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        yield warning(
            "clock", f"the clock shows {shown}, but the ledger's last entry is from {ahead}", remedy
        )
        return
    yield ok("clock", shown)


def _last_entry(folder: Path) -> float | None:
    """Return the time of the ledger's last entry, in Unix time. None if there is none or it cannot be
    read.
    """
    if not (folder / LEDGER_FILE).is_file():
        return None
    last: str | None = None
    try:
        for entry in Ledger.open(folder).entries():
            last = entry.time
        return None if last is None else datetime.fromisoformat(last).timestamp()
    except (ValueError, OSError):
        return None


def check_limits(subject: Subject) -> Iterator[Finding]:
    """Check that the system allows this user enough open files, threads and processors."""
    problems = [*_files(subject), *_processes(subject), *_threads(subject)]
    yield from either(
        problems, ok("limits", "the limits of open files, processes and threads are high enough")
    )


def _files(subject: Subject) -> Iterator[Finding]:
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = subject.settings.max_connections
    if hard != resource.RLIM_INFINITY and hard < wanted + SPARE:
        allowed = max(1, hard - SPARE)
        yield warning(
            "limits",
            f"{hard} open files allow {allowed} connections, but max_connections is {wanted}",
            f"Raise the limit (ulimit -Hn {wanted + SPARE}; systemd: LimitNOFILE={wanted + SPARE}), "
            f"or set max_connections to {allowed}",
        )


def _processes(subject: Subject) -> Iterator[Finding]:
    wanted = LEAST_THREADS + (subject.settings.threads or os.cpu_count() or 1)
    limits = [*_process_limit(), *_cgroup_pids()]
    least = min(limits, default=None)
    if least is not None and least < wanted:
        yield warning(
            "limits",
            f"{least} threads and processes are allowed, but a server may start {wanted}",
            "Raise the limit (ulimit -u; systemd: TasksMax; containers: --pids-limit), or lower threads",
        )


def _process_limit() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard != resource.RLIM_INFINITY:
        yield hard


def _cgroup_pids(root: Path = CGROUP) -> Iterator[int]:
    most = _number(_read(root / "pids.max"))
    if most is not None:
        yield most


def _threads(subject: Subject) -> Iterator[Finding]:
    threads = subject.settings.threads or os.cpu_count() or 1
    cores = usable_cores()
    if threads > cores:
        which = f"threads is {threads}" if subject.settings.threads else f"{threads} threads would compute"
        yield warning(
            "limits",
            f"{which}, but this process may use only {cores:g} cores, which makes it slow",
            f"Set threads to {max(1, int(cores))}",
        )


def usable_cores(root: Path = CGROUP) -> float:
    """Return the number of processors that this process may use, within a container's quota."""
    affinity: float = os.cpu_count() or 1
    if sys.platform == "linux":
        affinity = len(os.sched_getaffinity(0))
    quota, period = map(_number, (*_read(root / "cpu.max").split(), "", "")[:2])
    return min(affinity, quota / period) if quota and period else affinity


def _number(text: str) -> int | None:
    """Parse a number from a cgroup's file. None for `max` (no limit) and for anything else."""
    try:
        return parse_integer(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
