"""Adapters and bases without serving: their file formats, how they are found, and how they are made.
`routing` and `server` import this package.
"""
