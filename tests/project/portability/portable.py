"""What of a module Windows would not run: POSIX-only modules and names that it can reach there.

A name is fine where Windows does not come: behind `if sys.platform != "win32"`, `os.name == "posix"`,
`hasattr(os, "…")` and the like, in any form (`if`, `and`, `… if … else …`, an early `return`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULES = _words("""
    fcntl resource pwd grp spwd crypt termios tty pty posix syslog nis ossaudiodev curses readline uvloop
    gunicorn pexpect
""")
NAMES: dict[str, frozenset[str]] = {
    "os": _words("""
        fork forkpty kill killpg wait wait3 wait4 waitid WNOHANG WIFEXITED WEXITSTATUS WIFSIGNALED WTERMSIG
        getuid geteuid getgid getegid getgroups getpgid getpgrp getresuid getsid setuid setgid seteuid setegid
        setsid setpgid setpgrp nice getpriority setpriority sched_getaffinity sched_setaffinity sched_yield
        posix_fallocate posix_fadvise posix_spawn posix_spawnp fchmod fchown chown lchown lchmod chroot mkfifo
        mknod major minor pread pwrite preadv pwritev readv writev sendfile splice fdatasync sync statvfs
        fstatvfs uname getloadavg sysconf confstr pathconf fpathconf ctermid ttyname openpty login_tty
        memfd_create eventfd copy_file_range getxattr setxattr register_at_fork pipe2 fchdir lockf symlink
        link O_DIRECTORY O_NOFOLLOW O_CLOEXEC O_NONBLOCK O_SYNC O_DSYNC O_NOCTTY O_DIRECT O_TMPFILE O_PATH
    """),
    "signal": _words("""
        SIGHUP SIGUSR1 SIGUSR2 SIGKILL SIGQUIT SIGCHLD SIGALRM SIGPIPE SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU
        SIGWINCH alarm pause setitimer getitimer siginterrupt sigwait sigwaitinfo sigtimedwait pthread_kill
        pthread_sigmask sigpending ITIMER_REAL
    """),
    "mmap": _words("""
        MAP_PRIVATE MAP_SHARED MAP_ANON MAP_ANONYMOUS MAP_POPULATE MAP_NORESERVE MAP_STACK PROT_READ
        PROT_WRITE PROT_EXEC MADV_DONTNEED MADV_WILLNEED MADV_FREE MADV_SEQUENTIAL MADV_RANDOM MADV_HUGEPAGE
    """),
    "socket": _words("AF_UNIX SO_REUSEPORT send_fds recv_fds AF_VSOCK SO_PEERCRED MSG_DONTWAIT"),
    "time": _words("tzset clock_gettime clock_gettime_ns CLOCK_MONOTONIC pthread_getcpuclockid"),
    "sys": _words("abiflags setdlopenflags"),
}
METHODS = _words("""
    add_signal_handler create_unix_server create_unix_connection open_unix_connection start_unix_server
    symlink_to hardlink_to madvise sendmsg recvmsg is_mount lchmod owner
""")
"""Forbidden on whatever they are called: event loops, paths, mappings, sockets."""
KEYWORDS: dict[str, frozenset[object]] = {
    "preexec_fn": frozenset([None]),
    "start_new_session": frozenset([False]),
    "pass_fds": frozenset([()]),
    "process_group": frozenset([None]),
}
"""Keyword arguments that Windows refuses, unless they have one of these values."""
STARTS, FORK = _words("get_context set_start_method"), _words("fork forkserver")
TEXT_METHODS = frozenset({"read_text", "write_text"})


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that Windows would not run, or would run otherwise."""

    module: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.what}"


class Module:
    """One parsed module."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self._parents = {
            child: parent for parent in ast.walk(self.tree) for child in ast.iter_child_nodes(parent)
        }
        self._constants: dict[str, ast.expr] = {}
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=target)], value=value):
                    self._constants[target] = value
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value):
                    self._constants[target] = value
                case _:
                    pass
        self._modules = self._imported_modules()

    def findings(self) -> Iterator[Finding]:
        """All that Windows meets in it."""
        for node in ast.walk(self.tree):
            for what in self._judge(node):
                if self._reached(node):
                    yield Finding(self.name, getattr(node, "lineno", 0), what)

    def imports(self, known: Iterable[str]) -> set[str]:
        """Which of `known` modules it imports, anywhere, on Windows."""
        known = set(known)
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Import | ast.ImportFrom) or not self._reached(node):
                continue
            for name in _imported(node):
                parts = name.split(".")
                found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)} & known
        return found

    def _imported_modules(self) -> dict[str, str]:
        """Local name → module that it stands for, such as `system` for `import os as system`."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = alias.name
        return found

    def _judge(self, node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Import() | ast.ImportFrom():
                for name in _imported(node):
                    module, _, last = name.rpartition(".")
                    if name.partition(".")[0] in MODULES or last in NAMES.get(module, ()):
                        yield f"imports {name}"
            case ast.Attribute(value=ast.Name(id=base), attr=attr) if attr in NAMES.get(
                self._modules.get(base, ""), ()
            ):
                yield f"{self._modules[base]}.{attr}"
            case ast.Call():
                yield from self._judge_call(node)
            case _:
                pass

    def _judge_call(self, node: ast.Call) -> Iterator[str]:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if isinstance(function, ast.Attribute) and name in METHODS:
            yield f".{name}()"
        for keyword in node.keywords:
            allowed = KEYWORDS.get(keyword.arg or "")
            if allowed is not None and not self._has_windows_value(keyword.value, allowed):
                yield f"{keyword.arg}="
        match node.args:
            case [ast.Constant(value=method), *_] if name in STARTS and method in FORK:
                yield f"{name}({method!r})"
            case _:
                pass
        yield from self._judge_text(node, name)

    def _judge_text(self, node: ast.Call, name: str) -> Iterator[str]:
        """Text files: Windows reads and writes them in a local 8-bit encoding, and turns \\n to \\r\\n."""
        given = {keyword.arg for keyword in node.keywords}
        mode = _mode(node, name)
        if name in TEXT_METHODS or (mode is not None and "b" not in mode):
            if "encoding" not in given and not (
                name in TEXT_METHODS and _count(node) > (name == "write_text")
            ):
                yield f"{name} without encoding="
            writes = name == "write_text" or (mode is not None and set(mode) & set("wax+"))
            if writes and "newline" not in given:
                yield f"{name} for writing without newline="

    def _has_windows_value(self, value: ast.expr, allowed: frozenset[object]) -> bool:
        if isinstance(value, ast.IfExp):
            test = self._on_windows(value.test)
            return test is not None and self._has_windows_value(value.body if test else value.orelse, allowed)
        if isinstance(value, ast.Tuple) and not value.elts:
            return () in allowed
        return isinstance(value, ast.Constant) and value.value in allowed

    def _reached(self, node: ast.AST) -> bool:
        """Whether Windows comes to `node`."""
        while node in self._parents:
            parent = self._parents[node]
            if not self._enters(parent, node) or self._left_before(parent, node):
                return False
            node = parent
        return True

    def _enters(self, parent: ast.AST, child: ast.AST) -> bool:
        match parent:
            case ast.If(test=test) | ast.While(test=test):
                verdict = self._on_windows(test)
                return not (
                    (child in parent.body and verdict is False)
                    or (child in parent.orelse and verdict is True)
                )
            case ast.IfExp(test=test):
                verdict = self._on_windows(test)
                return not (
                    (child is parent.body and verdict is False)
                    or (child is parent.orelse and verdict is True)
                )
            case ast.BoolOp(op=op, values=values) if child in values:
                stop = isinstance(op, ast.Or)
                before = values[: values.index(child)] if isinstance(child, ast.expr) else []
                return all(self._on_windows(value) is not stop for value in before)
            case ast.Try() if child in parent.body:
                return not any(_catches_absence(handler) for handler in parent.handlers)
            case _:
                return True

    def _left_before(self, parent: ast.AST, child: ast.AST) -> bool:
        """Whether Windows leaves the block before it comes to `child`."""
        for field in ("body", "orelse", "finalbody"):
            block = getattr(parent, field, None)
            if not isinstance(block, list) or child not in block:
                continue
            for statement in block[: block.index(child)]:
                match statement:
                    case ast.If(
                        test=test, body=[*_, ast.Return() | ast.Raise() | ast.Continue() | ast.Break()]
                    ):
                        if self._on_windows(test) is True:
                            return True
                    case _:
                        pass
        return False

    def _on_windows(self, test: ast.expr) -> bool | None:
        """What a condition comes to on Windows; None where it is about something else."""
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._on_windows(operand)
                return None if inner is None else not inner
            case ast.BoolOp(op=op, values=values):
                verdicts = [self._on_windows(value) for value in values]
                decisive = isinstance(op, ast.Or)
                if decisive in verdicts:
                    return decisive
                return None if None in verdicts else not decisive
            case ast.Compare(left=left, ops=[op], comparators=[ast.Constant(value=str() as text)]):
                here = {"sys.platform": "win32", "os.name": "nt"}.get(ast.unparse(left))
                if here is None or not isinstance(op, ast.Eq | ast.NotEq):
                    return None
                return (here == text) is isinstance(op, ast.Eq)
            case ast.Call(
                func=ast.Attribute(attr="startswith") as method, args=[ast.Constant(value=str() as text)]
            ):
                return "win32".startswith(text) if ast.unparse(method.value) == "sys.platform" else None
            case ast.Call(
                func=ast.Name(id="hasattr"), args=[ast.Name(id=base), ast.Constant(value=str() as name)]
            ):
                return False if name in NAMES.get(self._modules.get(base, ""), ()) else None
            case ast.Name(id=name) if name in self._constants:
                return self._on_windows(self._constants[name])
            case _:
                return None


def walk(
    root: Path, starts: Iterable[str], stops: Iterable[str], packages: Iterable[str]
) -> dict[str, Module]:
    """Every module of `packages` under `root` imported, at once or later, from `starts`; not `stops`."""
    files = {name: path for package in packages for name, path in _modules(root, package)}
    found: dict[str, Module] = {}
    waiting = list(starts)
    barred = set(stops)
    while waiting:
        name = waiting.pop()
        if name in found or any(name == stop or name.startswith(f"{stop}.") for stop in barred):
            continue
        found[name] = Module(name, files[name].read_text(encoding="utf-8"))
        waiting += found[name].imports(files)
    return found


def _modules(root: Path, package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _count(node: ast.Call) -> int:
    return len(node.args)


def _mode(node: ast.Call, name: str) -> str | None:
    """The mode of a call that opens a file, as far as it is written there; None for other calls."""
    function = node.func
    if name not in ("open", "fdopen"):
        return None
    place = 1 if isinstance(function, ast.Name) or name == "fdopen" else 0
    if isinstance(function, ast.Attribute) and name == "open" and ast.unparse(function.value) == "os":
        return None
    given = next((keyword.value for keyword in node.keywords if keyword.arg == "mode"), None)
    value = given or (node.args[place] if len(node.args) > place else None)
    if value is None:
        bare = isinstance(function, ast.Name) or name == "fdopen" or not node.args
        return "r" if bare and not _is_other_open(node) else None
    if (
        isinstance(value, ast.Constant)
        and isinstance(value.value, str)
        and set(value.value) <= set("rwaxbt+")
    ):
        return value.value
    return None


def _is_other_open(node: ast.Call) -> bool:
    """`something.open()` that is no file: a method of our own."""
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr == "open"
        and not node.args
        and not node.keywords
    )


def _catches_absence(handler: ast.ExceptHandler) -> bool:
    names = {getattr(name, "id", "") for name in ast.walk(handler.type)} if handler.type else set()
    return bool(names & {"ImportError", "ModuleNotFoundError", "AttributeError"})
