"""Runs the comparison on a GPU: `python -m bench.gpu`."""

from bench.gpu.command import main

main()
