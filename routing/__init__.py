"""Detect the language and topic of a question, and choose the adapter that answers it, without I/O per
request. `server` imports this package.
"""
