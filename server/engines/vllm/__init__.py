"""The engine that runs a base on GPUs with vLLM, without vLLM's own HTTP server; imported only by
`server.engines.kinds`.
"""
