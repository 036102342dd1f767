"""Measure a scenario on a server, from the planned requests to the figures, and repeat it for ramps, adapter
costs and comparisons. `bench.cli` imports this package.
"""
