"""Defines the HTTP API in OpenAI's format: fields, endpoints, and the reading and writing of HTTP bodies.
Only `server.asgi` and the layers above it import this package.
"""
