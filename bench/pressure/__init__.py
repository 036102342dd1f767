"""Measure a server under floods of requests and overload, over HTTP. Only the package's own commands import
it.
"""
