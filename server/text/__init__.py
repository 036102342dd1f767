"""Tokenizer, chat templates and the syntax of tool calls, without HTTP or engines; everything above imports
it.
"""
