"""Run the benchmark of hostile requests, which are built to overload a server: `python -m bench.hostile`."""

from bench.hostile.command import main

main()
