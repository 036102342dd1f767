"""Named scenarios and the requests that they become for one server, without sending any; `bench.cli`
imports it.
"""
