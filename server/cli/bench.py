"""Implements `oneseek bench`, which passes its arguments on to the benchmark suite."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def bench(*arguments: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]) -> int:
    """Measure a model server over HTTP. `oneseek bench --help` lists the verbs.

    Parameters
    ----------
    arguments
        A verb of the benchmark suite and its options, passed on unchanged.
    """
    from bench.cli.dispatch import main

    return main(arguments)
