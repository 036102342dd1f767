"""Benchmarks that send load to an LLM server over HTTP and report what they measure. They do not use the
server's code; only `oneseek bench` and tests import this package.
"""
