"""Run the comparison of OneSeek with vLLM on a GPU: `python -m bench.gpu`."""

from bench.gpu.command import main

main()
