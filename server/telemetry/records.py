"""Writes log records to standard error, as text or as lines of JSON, without waiting for the process that
reads them.
"""

from __future__ import annotations

import io
import json
import logging
import time
from datetime import UTC, datetime
from typing import TextIO

from server.telemetry.lines import LineWriter

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """Formats each log record as one JSON object: time, event, level, logger, message, and any exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON. Called by `logging`."""
        line = {
            "time": format_time(record.created),
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class LineHandler(logging.Handler):
    """A logging handler that passes records to a `LineWriter`."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as a line. Called by `logging`."""
        try:
            self._writer.write(self.format(record).encode("utf-8", "replace") + b"\n")
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait up to a second until all logged records are written."""
        self._writer.flush()


def log_to(stream: TextIO, level: str, *, as_json: bool) -> None:
    """Send log records of `level` and above to `stream`. Does nothing if logging has handlers already."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = open_handler(stream)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(TEXT))
    root.addHandler(handler)
    root.setLevel(level.upper())


def open_handler(stream: TextIO) -> logging.Handler:
    """Return a logging handler for `stream`. It never makes callers wait, unless the stream has no file
    descriptor.
    """
    descriptor = descriptor_of(stream)
    return (
        logging.StreamHandler(stream)
        if descriptor is None
        else LineHandler(LineWriter(descriptor, direct=True))
    )


def descriptor_of(stream: TextIO | None) -> int | None:
    """Return the file descriptor of `stream`; None if the stream is missing, closed, or has none."""
    if stream is None or stream.closed:
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):
        return None


def format_time(seconds: float | None = None) -> str:
    """Format a Unix time (default: now) as `2026-11-28T13:37:00.123Z`."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def start_line(message: str, seconds: float) -> str:
    """Return one step of the server's start as a line of JSON."""
    fields = {"time": format_time(), "event": "start", "seconds": round(seconds, 2), "message": message}
    return json.dumps(fields, ensure_ascii=False)


def stop_line() -> str:
    """Return the log line, in JSON, that says that the server has stopped."""
    return json.dumps({"time": format_time(), "event": "stop", "message": "stopped"})


def is_terminal(stream: TextIO | None) -> bool:
    """True if `stream` is an open terminal."""
    return stream is not None and not stream.closed and stream.isatty()
