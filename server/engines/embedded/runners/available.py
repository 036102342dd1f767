"""Finds out how much more memory this process may take; the machine and its containers (cgroups) limit it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import psutil

CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
V1_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2_FILES = ("memory.max", "memory.current")


def available_memory(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the bytes of memory that this process may still take, including memory that the system can
    reclaim.
    """
    rooms = [psutil.virtual_memory().available]
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return rooms[0]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            rooms += _rooms(cgroups, path, V2_FILES)
        elif "memory" in controllers.split(","):
            rooms += _rooms(cgroups / "memory", path, V1_FILES)
    return max(0, min(rooms))


def _rooms(root: Path, path: str, files: tuple[str, str]) -> list[int]:
    """Return the bytes that each cgroup still allows, from the process's own cgroup `path` up to the root.

    The file cache counts as free. A cgroup that cannot be read is left out. In a container, `path` may be a
    path on the host; then only the root cgroup can be read.
    """
    own = PurePosixPath(path)
    groups = [root.joinpath(*parent.parts[1:]) for parent in (own, *own.parents)]
    return [room for group in groups if (room := _room(group, files)) is not None]


def _room(group: Path, files: tuple[str, str]) -> int | None:
    try:
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in files)
        if limit == "max":
            return None
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        cached = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
        return int(limit) - int(used) + cached
    except (OSError, ValueError):
        return None


MIB, GIB = 1 << 20, 1 << 30


def format_bytes(size: int) -> str:
    """Format a size in bytes, such as `4.1 GiB` or `310 MiB`."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{-(-size // MIB)} MiB"
