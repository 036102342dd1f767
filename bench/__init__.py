"""Load generation, scenarios and reports, over HTTP and without the server's code; nothing imports it but
tests.
"""
