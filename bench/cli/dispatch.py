"""The list of all verbs of `oneseek bench`, and the code that calls the verb named on the command line."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BenchVerb:
    """One verb of `oneseek bench`. Its `module` has a function `main(arguments)` that returns an exit code,
    or None for success.
    """

    module: str
    says: str


VERBS = {
    "run": BenchVerb("bench.cli.run", "measure a server in one or more scenarios"),
    "tax": BenchVerb("bench.cli.tax", "measure the cost of adapters, as ratios within one run"),
    "compare": BenchVerb(
        "bench.cli.compare", "compare two servers, commits or reports, and fail if B is worse"
    ),
    "limits": BenchVerb(
        "bench.limits.command",
        "compute the highest rates that a device can reach, and the cost of its tokens",
    ),
    "quality": BenchVerb(
        "bench.quality.command",
        "check routing, and the language and identity of answers by right and wrong adapters",
    ),
    "scale": BenchVerb(
        "bench.scale.command", "simulate how many replicas a load needs, from measured step times"
    ),
    "scenarios": BenchVerb("bench.cli.scenarios", "list the scenarios"),
    "report": BenchVerb("bench.cli.report", "write report.html again from a report.json"),
}
"""Maps the main verbs of `oneseek bench` to their modules. `oneseek bench --help` lists them first."""

COMMANDS = {
    "embedded": BenchVerb("bench.embedded", "compare the embedded engine with vLLM's CPU build and PEFT"),
    "gpu": BenchVerb("bench.gpu.command", "compare OneSeek with `vllm serve` on a GPU"),
    "prefill": BenchVerb("bench.prefill", "measure prefill of the embedded engine in each number format"),
    "bigbase": BenchVerb("bench.bigbase", "compare a large base on the CPU with llama.cpp"),
    "voices": BenchVerb("bench.voices", "ask five models one question, together and one by one"),
    "host": BenchVerb("bench.host", "print the description of this machine that reports contain"),
    "hostile": BenchVerb(
        "bench.hostile.command", "measure how long other clients wait during the largest requests"
    ),
    "pressure.fairness": BenchVerb(
        "bench.pressure.fairness", "measure a polite client while another client floods the server"
    ),
    "pressure.overload": BenchVerb(
        "bench.pressure.overload", "measure refusals, and goodput at five times the peak rate"
    ),
    "pressure.slots": BenchVerb(
        "bench.pressure.slots", "measure a server with many more adapters than slots"
    ),
    "pressure.bases": BenchVerb("bench.pressure.bases", "measure one server with two bases"),
}
"""Benchmarks that always start their own servers. Each also runs as `python -m MODULE`."""


def usage() -> str:
    """Return the text that `oneseek bench --help` prints."""
    lines = ["usage: oneseek bench VERB [OPTION...]", "", "Measure a model server over HTTP.", ""]
    for title, verbs in (("verbs:", VERBS), ("measurements with servers of their own:", COMMANDS)):
        lines += [title, *(f"  {name:<18} {verb.says}" for name, verb in verbs.items()), ""]
    return "\n".join([*lines, "oneseek bench VERB --help shows the options of a verb."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Call the verb that `arguments[0]` names with the other arguments. Return the verb's exit code, or 130
    after Ctrl-C.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
        return 0
    verb = (VERBS | COMMANDS).get(name)
    if verb is None:
        near = difflib.get_close_matches(name, VERBS | COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "to list the verbs, run: oneseek bench --help"
        print(f"oneseek bench: unknown verb {name!r}; {hint}", file=sys.stderr)
        return 2
    return _call(name, verb, rest)


def _call(name: str, verb: BenchVerb, rest: list[str]) -> int:
    """Import the verb's module and call its `main`. Set `sys.argv` for that time, because the verb's help
    text and its result quote the command.
    """
    try:
        module = importlib.import_module(verb.module)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "bench":
            raise
        remedy = "pip install 'oneseek[bench]'"
        print(f"oneseek bench {name}: {error.name} is not installed: {remedy}", file=sys.stderr)
        return 1
    before, sys.argv = sys.argv, [f"oneseek bench {name}", *rest]
    try:
        return int(module.main(rest) or 0)
    except KeyboardInterrupt:
        return 130
    finally:
        sys.argv = before
