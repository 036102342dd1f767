"""The `oneseek` command line. Each sub-command (verb), such as `oneseek serve`, is a thin call into its own
module.

Exit codes: 0 for success, 1 for a failure, 2 for a mistake in the command or the settings, 130 for Ctrl-C. A
server that is stopped by a signal exits with 0.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from server.names_guard import NAMES, ForeignNameError, refuse_foreign_names


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. A user's mistake prints one line, without a traceback."""
    _write_utf8()
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None and given[:1] == ["serve"]:
        # Until the verb itself heeds signals: whoever stops a server as it starts has not made it fail.
        signal.signal(signal.SIGTERM, _stop)
    try:
        refuse_foreign_names()
    except ForeignNameError as error:
        return _complain(error, 1)
    from cyclopts import CycloptsError
    from cyclopts.exceptions import UnusedCliTokensError

    from server.cli.app import build_app
    from server.cli.serving.vllm_flags import translate_flags
    from server.config.values import SettingsError

    try:
        if given[:1] == ["serve"]:
            given = ["serve", *translate_flags(given[1:])]
        code = int(build_app()(given) or 0)
        sys.stdout.flush()  # what cannot be written is an error here, not one that nobody handles at the exit
        return code
    except UnusedCliTokensError as error:
        left = " ".join(error.unused_tokens or ())
        return _complain(
            f"the command does not take the argument {left!r}; if it is a switch's value, write only --NAME "
            "or --no-NAME",
            2,
        )
    except (CycloptsError, SettingsError) as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # As of `oneseek … | head`: the reader has what it wanted. What is left goes nowhere, and quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        return _complain(_describe(error), code)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _exit_code(error: Exception) -> int | None:
    """Exit code for an error whose message alone is enough. None for an error that needs a traceback."""
    from routing.route import UnknownNameError
    from routing.selection import SelectionError

    if isinstance(error, UnknownNameError | SelectionError):
        return 2
    ours = type(error).__module__.partition(".")[0] in NAMES
    return 1 if ours or isinstance(error, OSError) else None


_REMEDIES = {
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "A part of the path is a file, not a folder; use a folder.",
    errno.EISDIR: "The path is a folder; use the path of a file.",
    errno.EACCES: "Give this user access to the path, or use another path.",
    errno.EPERM: "Give this user access to the path, or use another path.",
    errno.EROFS: "Use a path on a writable file system.",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space, or use another path."),
}


def _describe(error: Exception) -> str:
    """The error's message, with a remedy added if it has none."""
    from adapters.errors import UnknownAdapterError

    if isinstance(error, UnknownAdapterError) and not error.hints:
        return f"{error} To list the adapters, run: oneseek adapters list"
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return str(error)
    why = f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}."
    return f"{why} {_REMEDIES.get(error.errno or 0, '')}".rstrip()


def _complain(error: Exception | str, code: int) -> int:
    print(f"oneseek: {error}", file=sys.stderr)
    return code


def _write_utf8() -> None:
    """Set UTF-8 for standard output and error: on Windows their 8-bit encoding may lack characters such as å
    and →.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main())
