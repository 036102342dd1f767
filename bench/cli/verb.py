"""What all verbs of `oneseek bench` share: their exit codes, and how they write the result."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.target.http import TargetError


def guarded(
    verb: str,
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int],
    given: Sequence[str] | None,
) -> int:
    """Call `work` with the parsed flags and return its exit code. If `work` fails, print the error after the
    verb's name and return 2 for a mistake in the command, 1 for a server that fails or does not answer, and
    130 for Ctrl-C.
    """
    try:
        return work(parser.parse_args(given))
    except TargetError as error:
        failure, code = error, 1
    except ValueError as error:
        failure, code = error, 2
    except (RuntimeError, OSError) as error:
        failure, code = error, 1
    except KeyboardInterrupt:
        return 130
    print(f"oneseek bench {verb}: {failure}", file=sys.stderr)
    return code


def deliver(verb: str, document: Mapping[str, Any], out: Path | None) -> None:
    """Print `document` as the last line of output, and write it to the file `out`, if a file is given. If the
    file cannot be written, the result has been printed.
    """
    print(json.dumps({"bench": verb, **document}, ensure_ascii=False))
    sys.stdout.flush()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
