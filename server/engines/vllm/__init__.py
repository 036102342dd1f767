"""The engine for GPUs over vLLM, without vLLM's own HTTP server; only `engines.choice` and composition
import it.
"""
