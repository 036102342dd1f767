"""Measures the server and exports the metrics, without changing what is measured; all of `server` may import
this package.
"""
