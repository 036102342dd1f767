"""Compare OneSeek with vLLM's own server on a GPU, with different numbers of adapters and streams. Only the
package's own commands and tests import it.
"""

from __future__ import annotations

from bench.gpu.models import make_model

__all__ = ["make_model"]
