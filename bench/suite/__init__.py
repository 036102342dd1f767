"""One measurement from plan to figures, ramps, taxes and comparisons, without flags or files; `bench.cli`
imports it.
"""
