"""Reads JSON bodies and sends responses and event streams over HTTP, for any endpoint. The rest of
`server.api` imports this package.
"""
