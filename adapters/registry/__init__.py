"""Versions of adapters, their aliases, and which version of an alias is active: on disk and in memory,
without HTTP. `server` imports this package.
"""
