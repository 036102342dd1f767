"""Named scenarios of a benchmark, and the requests that a scenario sends to a given server. `bench.cli`
imports this package; other packages send the requests.
"""
