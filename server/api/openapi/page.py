"""Makes the page at `/docs`: a single file, since its content security policy forbids external resources."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent


def make_page() -> tuple[bytes, Mapping[str, str]]:
    """Return the page at `/docs` and its headers. The content security policy allows the page's own script
    and style by their digests.
    """
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    page = (_FOLDER / "page.html").read_text(encoding="utf-8")
    body = page.replace("/*style*/", style).replace("/*script*/", script)
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_digest(script)}",
            f"style-src {_digest(style)}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
    return body.encode("utf-8"), headers


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"
