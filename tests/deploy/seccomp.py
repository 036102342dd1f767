"""Filters of system calls as systemd sets them up for a unit, as programs that bubblewrap loads.

They follow systemd.exec(5): `SystemCallFilter`, `MemoryDenyWriteExecute`, `RestrictAddressFamilies` and
`RestrictNamespaces`. Needs libseccomp, on which systemd and apt depend.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ALLOW = 0x7FFF0000
EQUAL, MASKED_EQUAL = 4, 7
WRITE_AND_EXECUTE, EXECUTE, EXECUTE_SHARED = 0x6, 0x4, 0o100000
NAMESPACES = 0x7E020000
"""Every CLONE_NEW… flag."""
FAMILIES = 46


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def refuse(number: int) -> int:
    """The action that fails a call with `number`."""
    return 0x00050000 | number


class Filter:
    """A filter in the making; calls that no rule is about get `default`."""

    def __init__(self, default: int) -> None:
        self._library: Any = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, call: str, *comparisons: tuple[int, int, int, int]) -> None:
        """Give `call` the action if all comparisons hold. Calls that this machine lacks are passed over."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        array = (Comparison * len(comparisons))(*(Comparison(*one) for one in comparisons))
        code = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        if code:
            raise OSError(-code, f"seccomp has no rule for {call}")

    def write(self, path: Path) -> Path:
        """Write the filter as bubblewrap reads it."""
        with path.open("wb") as file:
            if code := self._library.seccomp_export_bpf(self._context, file.fileno()):
                raise OSError(-code, "seccomp writes no filter")
        self._library.seccomp_release(self._context)
        return path


@cache
def calls_in(group: str) -> frozenset[str]:
    """The calls of a group such as `@system-service`, by this machine's systemd."""
    command = ["systemd-analyze", "syscall-filter", "--no-pager", group]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = (line.strip() for line in text.splitlines()[1:])
    return expand(word for word in words if word and not word.startswith("#"))


def expand(words: Iterable[str]) -> frozenset[str]:
    """Calls and groups of calls as calls."""
    found: set[str] = set()
    for word in words:
        found |= calls_in(word) if word.startswith("@") else {word}
    return frozenset(found)


def allowed_calls(lines: Sequence[str]) -> frozenset[str]:
    """What several lines of `SystemCallFilter=` leave, the first of which allows."""
    found: frozenset[str] = frozenset()
    for line in lines:
        words = expand(line.removeprefix("~").split())
        found = found - words if line.startswith("~") else found | words
    return found


def filters(unit: dict[str, list[str]], folder: Path) -> Iterator[Path]:
    """The files of filters for what a unit's `[Service]` section restricts."""
    calls = Filter(refuse(errno.EPERM))
    # What starts the program is systemd's default set, which it always allows.
    for call in sorted(allowed_calls(unit["SystemCallFilter"]) | calls_in("@default")):
        calls.add(ALLOW, call)
    yield calls.write(folder / "calls")
    if unit["MemoryDenyWriteExecute"] == ["yes"]:
        memory, denied = Filter(ALLOW), refuse(errno.EPERM)
        memory.add(denied, "mmap", (2, MASKED_EQUAL, WRITE_AND_EXECUTE, WRITE_AND_EXECUTE))
        for call in ("mprotect", "pkey_mprotect"):
            memory.add(denied, call, (2, MASKED_EQUAL, EXECUTE, EXECUTE))
        memory.add(denied, "shmat", (2, MASKED_EQUAL, EXECUTE_SHARED, EXECUTE_SHARED))
        yield memory.write(folder / "memory")
    allowed = {getattr(socket, name) for line in unit["RestrictAddressFamilies"] for name in line.split()}
    sockets = Filter(ALLOW)
    for family in set(range(FAMILIES)) - allowed:
        sockets.add(refuse(errno.EAFNOSUPPORT), "socket", (0, EQUAL, family, 0))
    yield sockets.write(folder / "sockets")
    if unit["RestrictNamespaces"] == ["yes"]:
        namespaces = Filter(ALLOW)
        namespaces.add(refuse(errno.ENOSYS), "clone3")
        for call, argument in (("clone", 0), ("unshare", 0)):
            for bit in range(32):
                if NAMESPACES >> bit & 1:
                    flag = 1 << bit
                    namespaces.add(refuse(errno.EPERM), call, (argument, MASKED_EQUAL, flag, flag))
        namespaces.add(refuse(errno.EPERM), "setns")
        yield namespaces.write(folder / "namespaces")
