"""The servers that a benchmark can start by itself: OneSeek, vLLM, llama.cpp and a service with PEFT.
`bench.cli` imports this package.
"""
