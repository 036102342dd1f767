"""Load generation, scenarios and reports, over HTTP and without the server's code; only `oneseek bench` and
tests import it.
"""
