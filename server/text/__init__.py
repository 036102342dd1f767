"""Tokenizer, chat templates and the syntax of tool calls, without HTTP or engines; imported by
`server.grammar` and the layers above it.
"""
