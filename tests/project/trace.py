"""Count how often a request changes folders in a real server, and how many files an alias move touches.

    python -m tests.project.trace [--root CHECKOUT]

Serves the shipped base in this process, asks it over HTTP, and records every call of a Python function in
`server/`, `adapters/` or `routing/`. As `sys.setprofile` has it, a coroutine or generator that is resumed is
called again; a return is no call. What uvicorn does ten times a second for no request is left out.

- `layers`: the changes of one streamed chat of one token: how often a call on the event loop's thread is in
  another folder than the call before it. A folder is a layer here, such as `server/api`, `adapters/registry`
  or `routing`, with all that is below it; the modules at the root of `server/` are one too.
- `folders`: the same by the folder that holds the file, such as `server/api/wire`.
- `each_delta`: changes of `layers` for each delta after the first, in an answer of many tokens.
- `files`: files with a call in any thread while `POST /admin/adapters/NAME/promote` moves an alias.

Each is traced several times, and the trace with the lowest count is taken: the engine's thread and what the
server does every second may come between. The last line is one JSON object. Use `--root` to trace another
checkout, such as one of an older commit.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGES = ("server", "adapters", "routing")
TICK = "on_tick"
"""What uvicorn calls ten times a second."""
KEY = "trace-admin"
CHATS, MOVES = 7, 3
TOKENS = 64
QUIET_SECONDS = 0.1
"""Time after an answer in which its request is tidied up."""
SWEDISH = "Hej! Kan du hjälpa mig med det här, tack?"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a project's function."""

    thread: int
    file: str
    """Its path in the checkout."""
    function: str

    @property
    def folder(self) -> str:
        return self.file.rpartition("/")[0]

    @property
    def layer(self) -> str:
        return "/".join(self.folder.split("/")[:2])


class Recorder:
    """Records the calls of functions below `root`; its `hook` is one for `sys.setprofile`."""

    def __init__(self, root: Path) -> None:
        self._prefix = f"{root}{os.sep}"
        self._starts = tuple(f"{self._prefix}{package}{os.sep}" for package in PACKAGES)
        self._calls: list[Call] | None = None

    def begin(self) -> None:
        """Record from now on."""
        self._calls = []

    def end(self) -> list[Call]:
        """Stop, and return the calls since `begin`."""
        calls, self._calls = self._calls or [], None
        return calls

    def hook(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call."""
        calls, code = self._calls, frame.f_code
        if calls is None or event != "call" or not code.co_filename.startswith(self._starts):
            return
        if not _is_idle(frame):
            calls.append(Call(threading.get_ident(), self._file(code), code.co_qualname))

    def _file(self, code: CodeType) -> str:
        return code.co_filename.removeprefix(self._prefix).replace(os.sep, "/")


def _is_idle(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == TICK:
            return True
        frame = frame.f_back
    return False


def changes(places: Iterable[str]) -> int:
    """How often a place is another than the one before it."""
    return sum(before != after for before, after in pairwise(places))


class Client:
    """Asks the server on `port` over one connection, as a thread beside it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def wait(self) -> None:
        """Return once the server answers; raise `TimeoutError` after a minute."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                if self.send("GET", "/ready")[0] == 200:
                    return
            except OSError:
                self._socket = None
            time.sleep(0.05)
        raise TimeoutError("the server did not start within 60 seconds")

    def send(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and text of an answer. Head and body go out as one, so that they arrive as one."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {KEY}"]
        if data:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + data)
        answer = http.client.HTTPResponse(self._socket, method=method)
        answer.begin()
        return answer.status, answer.read().decode()

    def get(self, method: str, path: str, body: object = None) -> str:
        """The text of an answer with status 200; raise `RuntimeError` for any other."""
        status, text = self.send(method, path, body)
        if status != 200:
            raise RuntimeError(f"{method} {path} is {status}: {text}")
        return text

    def chat(self, tokens: int) -> int:
        """Ask for a streamed answer of so many tokens; the number of its events."""
        body = {
            "model": "oneseek",
            "messages": [{"role": "user", "content": SWEDISH}],
            "max_tokens": tokens,
            "min_tokens": tokens,
            "temperature": 0,
            "stream": True,
        }
        return self.get("POST", "/v1/chat/completions", body).count("data: {")


@dataclass(frozen=True, slots=True)
class Trace:
    """What was recorded."""

    short: list[Call]
    """Of the event loop's thread, for a chat of one token."""
    each_delta: float
    move: list[Call]
    """Of all threads, for an alias move."""

    @property
    def files(self) -> list[str]:
        return sorted({call.file for call in self.move})

    def to_json(self) -> dict[str, Any]:
        """The counts."""
        return {
            "calls": len(self.short),
            "layers": changes(call.layer for call in self.short),
            "folders": changes(call.folder for call in self.short),
            "each_delta": round(self.each_delta, 1),
            "files": len(self.files),
        }


def trace(client: Client, recorder: Recorder, loop: int, weights: Path) -> Trace:
    """Ask a running server whose event loop has the thread id `loop`; `weights` holds two adapters."""
    client.wait()
    for tokens in (1, TOKENS):
        client.chat(tokens)  # what is made once for a server or a label
    short = [_chat(client, recorder, loop, 1) for _ in range(CHATS)]
    long = [_chat(client, recorder, loop, TOKENS) for _ in range(CHATS)]
    least = min(short, key=lambda found: changes(call.folder for call in found[0]))
    base = changes(call.layer for call in least[0])
    rates = [
        (changes(call.layer for call in calls) - base) / max(1, events - least[1]) for calls, events in long
    ]
    moves = _moves(client, recorder, weights)
    return Trace(least[0], min(rates), min(moves, key=lambda calls: len({call.file for call in calls})))


def _chat(client: Client, recorder: Recorder, loop: int, tokens: int) -> tuple[list[Call], int]:
    recorder.begin()
    events = client.chat(tokens)
    time.sleep(QUIET_SECONDS)
    return [call for call in recorder.end() if call.thread == loop], events


def _moves(client: Client, recorder: Recorder, weights: Path) -> list[list[Call]]:
    """Move an alias there and back; the first move is not recorded, as it makes what is made once."""
    for version, folder in (("v1.0", "oneseek-mini-sv"), ("v1.1", "oneseek-mini-en")):
        body = {"path": str(weights / folder), "alias": "moved", "version": version, "language": "sv"}
        client.get("POST", "/admin/adapters", body)
    client.get("POST", "/admin/adapters/moved@v1.1/promote")
    found: list[list[Call]] = []
    for before, after in [("moved@v1.1", "moved@v1.0"), ("moved@v1.0", "moved@v1.1")] * MOVES:
        time.sleep(QUIET_SECONDS)
        recorder.begin()
        told = json.loads(client.get("POST", f"/admin/adapters/{after}/promote"))
        time.sleep(QUIET_SECONDS)
        found.append(recorder.end())
        if (told["live"], told["before"]) != (True, before):
            raise RuntimeError(f"the alias did not move: {told}")
    return found


def print_trace(found: Trace) -> None:
    """The calls by folder and the files, then one JSON object."""
    print("One streamed chat of one token, by folder:")
    for number, (folder, calls) in enumerate(groupby(found.short, key=lambda call: call.folder)):
        functions = [f"{Path(call.file).stem}:{call.function}" for call in calls]
        text = " ".join(dict.fromkeys(functions)).replace(".<locals>", "")
        print(f"{number:4}  {folder:34} {text[:160]}")
    print("\nOne alias move, by file:")
    for file in found.files:
        print(f"      {file}")
    counts = found.to_json()
    print()
    for name, value in counts.items():
        print(f"{name:12} {value:>6}")
    print(json.dumps(counts))


def run(root: Path) -> int:
    """Serve, trace and print; the exit code."""
    sys.path.insert(0, str(root))
    from server.__main__ import main

    recorder, failures = Recorder(root), list[BaseException]()
    loop = threading.get_ident()
    weights = root / "adapters" / "mini" / "weights"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]

    def ask() -> None:
        sys.setprofile(None)
        try:
            print_trace(trace(Client(port), recorder, loop, weights))
        except BaseException as error:
            failures.append(error)
        finally:
            signal.raise_signal(signal.SIGINT)

    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # where no other base or adapter lies
        threading.setprofile(recorder.hook)
        threading.Thread(target=ask, daemon=True).start()
        sys.setprofile(recorder.hook)
        try:
            flags = {"port": str(port), "home": scratch, "admin-keys": KEY, "adapter-roots": str(weights)}
            flags |= {"follow-registry": "0", "log-level": "error"}
            main(["serve", *(part for name, value in flags.items() for part in (f"--{name}", value))])
        finally:
            sys.setprofile(None)
            os.chdir(root)
    for failure in failures:
        raise failure
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.project.trace", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).parents[2], help="checkout to trace. Default: this one"
    )
    return run(parser.parse_args(arguments).root.resolve())


if __name__ == "__main__":
    sys.exit(main())
