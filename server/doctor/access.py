"""Check who can reach the server and its files: the address, the keys, and what other users can read or
change.
"""

from __future__ import annotations

import http.client
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from adapters.ledger.verify import KEY_FILE
from server.asgi.listening import bind
from server.config.hosts import is_loopback
from server.config.settings import OPTIONS
from server.config.values import SettingsError
from server.doctor.findings import Finding, divided, either, fault, ok, warning
from server.doctor.subject import Subject

SHORT_KEY = 16
"""A key with fewer characters than this counts as guessable."""
ASK_SECONDS = 1.0
"""Seconds to wait for an answer from the program that uses the port."""


def check_port(subject: Subject) -> Iterator[Finding]:
    """Check that the port is free, by binding it for a moment without listening."""
    host, port = subject.settings.host, subject.settings.port
    try:
        sockets = bind(host, port)
    except OSError as error:
        if listens(host, port):
            yield ok("port", f"a OneSeek server listens on {host}:{port}")
            return
        message, _, remedy = str(error).rpartition("; ")
        yield fault("port", message or str(error), remedy[:1].upper() + remedy[1:])
        return
    for opened in sockets:
        opened.close()
    yield ok("port", f"{host}:{port} is free" if port else "the server will use any free port")


def listens(host: str, port: int) -> bool:
    """True if a OneSeek server already listens on this host and port."""
    if not port:
        return False
    place = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    connection = http.client.HTTPConnection(place, port, timeout=ASK_SECONDS)
    with suppress(OSError, http.client.HTTPException), closing(connection):
        connection.request("GET", "/live")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read(256) == b'{"status":"live"}'
    return False


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Check that using the server requires a key, that no key is easy to guess, and that the keys of external
    services are set.
    """
    settings = subject.settings
    problems = list(_external_keys(subject))
    if not settings.api_keys and not is_loopback(settings.host):
        remedy = "Set ONESEEK_API_KEYS to a long random text, such as: openssl rand -hex 32"
        problems.append(
            warning(
                "keys",
                f"host {settings.host} is reachable from outside, but no api_keys are set: anyone can use it",
                remedy,
            )
        )
    for name in ("api_keys", "admin_keys", "metrics_keys"):
        keys: tuple[str, ...] = getattr(settings, name)
        if any(len(key) < SHORT_KEY for key in keys):
            remedy = "Replace the short key with a long random text, such as: openssl rand -hex 32"
            problems.append(
                warning(
                    "keys",
                    f"a key in {name} has fewer than {SHORT_KEY} characters, so it can be guessed",
                    remedy,
                )
            )
    counts = [f"{len(getattr(settings, name))} {name}" for name in ("api_keys", "admin_keys", "metrics_keys")]
    closed = "" if settings.admin_keys else "; without admin_keys, adapters cannot be changed over HTTP"
    yield from either(problems, ok("keys", ", ".join(counts) + closed))


def _external_keys(subject: Subject) -> Iterator[Finding]:
    for service in subject.settings.external.values():
        try:
            service.read_key(subject.environ)
        except SettingsError as error:
            yield fault("keys", *divided(f"{error.name} {error.problem}"))


def check_files(subject: Subject) -> Iterator[Finding]:
    """Check which files other users of this machine can read or change."""
    if sys.platform == "win32":
        yield ok("files", "file permissions are not checked on Windows")
        return
    home = subject.settings.home
    problems = [*_secret_settings(subject), *_writable(home), *_readable(home / "ledger" / KEY_FILE)]
    yield from either(problems, ok("files", "no other user can read secrets or change the state"))


def _secret_settings(subject: Subject) -> Iterator[Finding]:
    """Check that other users cannot read the settings file, if it holds keys."""
    origins = [subject.resolved.origins.get(one.path, "") for one in OPTIONS if one.secret]
    if any(origin.startswith(f"{subject.file.name}:") for origin in origins):
        yield from _readable(subject.root / subject.file)


def _readable(path: Path) -> Iterator[Finding]:
    mode = _mode(path)
    if mode is not None and mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            "files",
            f"{path} holds a secret, but other users of this machine can read the file",
            f"Run: chmod 600 {shlex.quote(str(path))}",
        )


def _writable(home: Path) -> Iterator[Finding]:
    for folder in (home, home / "registry", home / "ledger", home / "graphs"):
        mode = _mode(folder)
        if mode is not None and mode & stat.S_IWOTH:
            message = f"every user of this machine can change files in {folder}, such as adapters"
            yield fault("files", message, f"Run: chmod o-w {shlex.quote(str(folder))}")


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None
