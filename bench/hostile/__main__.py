"""Runs the benchmark of hostile requests: `python -m bench.hostile`."""

from bench.hostile.command import main

main()
