"""Converts a request's fields to prompts, sampling parameters and tools for an engine, without any I/O. The
rest of `server.api` imports this package.
"""
