"""Engines that run a base model with its adapters behind one protocol, without HTTP or routing; imported by
`server.live` and the layers above it.
"""
