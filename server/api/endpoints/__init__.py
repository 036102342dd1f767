"""Handles requests: one module for each group of endpoints. Parsing and rendering are in the packages
`parsing` and `rendering`; only `server.asgi` imports this package.
"""
