"""Prompts in English and Swedish, and readers for prompt files and traces that a user provides.
`bench.scenarios` imports this package.
"""
