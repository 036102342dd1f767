"""Check over HTTP whether a server routes requests to the right adapter, and compare the answers of right and
wrong adapters.
"""
