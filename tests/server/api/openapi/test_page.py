"""The page at /docs needs nothing from elsewhere, and its policy lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re

from server.api.openapi.page import make_page


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_it_is_self_contained_and_small() -> None:
    body, _ = make_page()
    text = body.decode()
    assert len(body) < 400_000
    assert not re.search(r"https?://|//[a-z]|@import|url\(", text.replace("// Everything", ""))
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", text)


def test_its_policy_holds_its_own_script_and_style_alone() -> None:
    body, headers = make_page()
    text = body.decode()
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == digest(script)
    assert policy["style-src"] == digest(style)
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


def test_the_document_cannot_become_markup() -> None:
    text = make_page()[0].decode()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\son\w+=", text)
