"""OneSeek and vLLM's own server on a GPU, in every scenario, without other rivals; only its own command and
tests import it.
"""

from __future__ import annotations

from bench.gpu.command import main
from bench.gpu.models import make_model

__all__ = ["main", "make_model"]
