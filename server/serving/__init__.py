"""Serves one request: chooses the base and adapter that answer, then generates text or computes embeddings,
without HTTP. `server.api` and the layers above import this package.
"""
