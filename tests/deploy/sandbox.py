"""A network of its own, and a file system of its own, for programs that want a whole machine.

In a network that nobody else is in, a configuration can be run with the very ports that it names.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

CLONE_NEWNET = 0x40000000
SECONDS = 60
"""How long a program may take to say that it is ready, and to end."""

ISOLATED = (
    "--unshare-pid",
    "--as-pid-1",
    "--unshare-ipc",
    "--unshare-uts",
    "--die-with-parent",
    "--clearenv",
)

Result = TypeVar("Result")


class Network:
    """A network namespace with nothing in it but loopback, held by a process that sleeps. Needs root."""

    def __init__(self, bwrap: Path) -> None:
        reading, writing = os.pipe()
        sleeping = ("--dev-bind", "/", "/", "--unshare-net", "--die-with-parent", "sleep", "infinity")
        self._holder = subprocess.Popen(
            [str(bwrap), "--json-status-fd", str(writing), *sleeping], pass_fds=[writing]
        )
        os.close(writing)
        with os.fdopen(reading) as status:
            self.path = f"/proc/{json.loads(status.readline())['child-pid']}/ns/net"
            """The file that stands for the namespace."""
        self._threads = ThreadPoolExecutor(32, initializer=self._enter)

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns if it runs in a thread inside: sockets that it opens are of this network."""
        return self.start(work).result(5 * SECONDS)

    def start(self, work: Callable[[], Result]) -> Future[Result]:
        """The same, without waiting for it."""
        return self._threads.submit(work)

    def enter(self, command: Sequence[str]) -> list[str]:
        """`command`, run inside."""
        return ["nsenter", f"--net={self.path}", *command]

    def close(self) -> None:
        """Give it up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._holder.kill()
        self._holder.wait()

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(self.path).open("rb") as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"{self.path} cannot be entered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What a program sees: bubblewrap's arguments, in words."""

    bwrap: Path
    root: Path | None = None
    """Its root, read-only; without one, this machine's /usr and nothing else."""
    read_only: Mapping[Path, str] = field(default_factory=dict[Path, str])
    """Here → there."""
    writable: Mapping[Path, str] = field(default_factory=dict[Path, str])
    empty: Sequence[str] = ("/tmp", "/run")
    """Folders that are empty, writable, and gone afterwards."""
    environ: Mapping[str, str] = field(default_factory=dict[str, str])
    """All of its environment."""
    folder: str = "/"
    user: int = 0
    """Without one, root without any of its capabilities."""
    rights: bool = False
    """Keep root's capabilities, for a program that changes its user itself."""
    seccomp: Sequence[Path] = ()
    """Filters of system calls, which the program is started under."""

    def command(self, *command: str) -> list[str]:
        """`command` with all that stands before it. Needs root."""
        told = [*ISOLATED, *self._files(), "--chdir", self.folder]
        for name, value in self.environ.items():
            told += ["--setenv", name, value]
        if self.user:
            # In namespaces that root has made, so that the user needs no right to make any.
            drop = ("--reuid", str(self.user), "--regid", str(self.user), "--clear-groups", "--no-new-privs")
            keep = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
            told += [*keep, "--", "/usr/bin/setpriv", *drop, "--inh-caps=-all", "--"]
        else:
            told += [*(() if self.rights else ("--cap-drop", "ALL")), "--"]
        if not self.seccomp:
            return [str(self.bwrap), *told, *command]
        # Bubblewrap reads filters from descriptors, which the shell opens for it.
        numbered = [*enumerate(self.seccomp, 20)]
        added = [word for number, _ in numbered for word in ("--add-seccomp-fd", str(number))]
        opened = " ".join(f"{number}<{shlex.quote(str(path))}" for number, path in numbered)
        return ["bash", "-c", f"exec {shlex.join([str(self.bwrap), *added, *told, *command])} {opened}"]

    def _files(self) -> list[str]:
        bound = [("--ro-bind", here, there) for here, there in self.read_only.items()]
        bound += [("--bind", here, there) for here, there in self.writable.items()]
        if self.root is None:
            told = ["--ro-bind", "/usr", "/usr"]
            for name in ("bin", "lib", "lib64"):
                told += ["--symlink", f"usr/{name}", f"/{name}"]
            bound.insert(0, ("--ro-bind", Path("/etc/ssl"), "/etc/ssl"))
        else:
            told = ["--ro-bind", str(self.root), "/"]
        told += ["--dev", "/dev", "--proc", "/proc"]
        for place in self.empty:
            told += ["--perms", "1777", "--tmpfs", place]
        if self.root is None:
            # Named one by one: folders that bubblewrap makes by itself are for root alone.
            above = {place for _, _, there in bound for place in Path(there).parents} - {Path("/")}
            for place in sorted(above, key=lambda place: len(place.parts)):
                told += ["--perms", "0755", "--dir", str(place)]
        return told + [word for how, here, there in bound for word in (how, str(here), there)]


class Running:
    """A program that was started, with its log."""

    def __init__(self, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("w") as written:
            self.process = subprocess.Popen(command, stdout=written, stderr=written, env=environ)

    def until(self, ready: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Wait until `ready`; fail with the log if the program ends before, or takes too long."""
        end = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(self.log.read_text()[-5000:])
            time.sleep(0.05)

    def said(self, text: str) -> bool:
        """True if the log has `text`."""
        return text in self.log.read_text()

    def stop(self) -> None:
        """Ask it to stop. In a sandbox the program is the only child, and bubblewrap passes no signal on."""
        children = psutil.Process(self.process.pid).children()
        for process in children or [self.process]:
            process.terminate()

    def end(self) -> int:
        """Ask it to stop, and return its exit code."""
        if self.process.poll() is None:
            self.stop()
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def own(folder: Path, user: int) -> Path:
    """`folder`, made if need be, as `user`'s."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.chown(folder, user, user)
    return folder
