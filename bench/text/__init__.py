"""Prompts in English and Swedish, and files of prompts that a user brings, without any server;
`bench.scenarios` imports it.
"""
