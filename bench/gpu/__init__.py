"""Compares OneSeek with vLLM's own server on a GPU, in every scenario; only its own command and tests
import it.
"""

from __future__ import annotations

from bench.gpu.models import make_model

__all__ = ["make_model"]
