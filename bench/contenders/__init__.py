"""Servers that the suite can start by itself (OneSeek, vLLM, llama.cpp, a PEFT service); `bench.cli`
imports it.
"""
