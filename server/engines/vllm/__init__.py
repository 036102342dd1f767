"""The engine for GPUs over vLLM, without vLLM's own HTTP server; only `engines.kinds` and composition
import it.
"""
