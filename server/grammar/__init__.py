"""Grammars for structured output, from a client's schema to token masks, without HTTP; imported by
`server.engines` and the layers above it.
"""
