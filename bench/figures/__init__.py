"""Compute the figures of a benchmark (percentiles, goodput, fairness, confidence intervals) from its request
records, without I/O. `bench` imports this package.
"""
