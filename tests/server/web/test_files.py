"""The page's files: how they are sent, under which policy, how large they are, and where they are from."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import httpx
import pytest

from routing.route import Reason
from server.web.files import FOLDER, INDEX, MEDIA_TYPES
from tests.server.http_server import Serving

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MOST_BYTES, MOST_PACKED = 300_000, 110_000
SENT = sorted(path for path in FOLDER.rglob("*") if path.suffix in MEDIA_TYPES)
VENDOR = FOLDER / "vendor"
IMPORT = re.compile(r"""\b(?:from|import)\s*["']([^"']+)["']|@import "([^"]+)\"""")


def test_a_browser_gets_the_page_and_a_program_what_it_got_before(client: httpx.Client) -> None:
    page = client.get("/", headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Accept" in page.headers["vary"]
    for accept in ("*/*", "application/json", ""):
        answer = client.get("/", headers={"Accept": accept})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_policy_runs_nothing_but_the_pages_own_files(client: httpx.Client) -> None:
    for path in ("/", "/page/app/main.js", "/page/style/page.css"):
        answer = client.get(path, headers=HTML)
        policy = answer.headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "style-src 'self'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in " ".join(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
    markup = (FOLDER / INDEX).read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", markup)


def test_files_are_packed_and_cached(client: httpx.Client) -> None:
    path = "/page/vendor/preact.js"
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content == (VENDOR / "preact.js").read_bytes()
    again = client.get(path, headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/page/nothing.js",
        "/page/index.html",
        "/page/files.py",
        "/page/__init__.py",
        "/page/vendor/vendor.json",
        "/page/../files.py",
        "/page/%2e%2e/files.py",
        "/page/vendor/../../errors.py",
        "/page//etc/passwd",
        "/page",
        "/page/vendor",
    ],
)
def test_nothing_else_is_sent(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers=HTML).status_code == 404


def test_it_weighs_little() -> None:
    assert sum(path.stat().st_size for path in SENT) <= MOST_BYTES
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in SENT) <= MOST_PACKED


def test_every_import_leads_to_a_file() -> None:
    """Without a build step a path is all that a browser knows."""
    for path in SENT:
        if path.suffix not in (".js", ".css") or path.parent == VENDOR:
            continue
        for found in IMPORT.findall(path.read_text(encoding="utf-8")):
            target = found[0] or found[1]
            assert target.startswith((".", "../")) or path.suffix == ".css", (path, target)
            assert (path.parent / target).resolve() in SENT, (path, target)


def test_libraries_are_what_was_vendored() -> None:
    parts = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
    assert set(parts) == {path.name for path in SENT if path.parent == VENDOR}
    lock = json.loads(Path("tests/page/node/package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name, part in parts.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == part["sha256"], name
        for package in part["packages"]:
            assert lock[f"node_modules/{package['name']}"]["version"] == package["version"]
            assert package["licence"]
            assert (VENDOR / package["licence_file"]).stat().st_size > 500


def test_everything_is_said_in_both_languages() -> None:
    phrases = (FOLDER / "app" / "phrases.js").read_text(encoding="utf-8")
    said = set(re.findall(r"^  \"?([\w-]+)\"?: \[", phrases, re.M))
    pairs = re.findall(r'\[\s*"(?:[^"\\]|\\.)+",\s*"(?:[^"\\]|\\.)+",?\s*\]', phrases)
    assert len(pairs) == len(said) > 100
    others = [path for path in SENT if path.parent.name == "app" and path.name != "phrases.js"]
    code = "".join(path.read_text(encoding="utf-8") for path in others)
    assert set(re.findall(r"""\bt\(\s*["']([\w-]+)["']""", code)) <= said
    assert {f"because_{reason}" for reason in Reason} <= said
    prefixed = ("because_", "role_", "tier_")
    assert {key for key in said if not key.startswith(prefixed) and f'"{key}"' not in code} <= {"compare"}


def test_visits_are_not_counted_as_requests(serving: Serving) -> None:
    serving.http.get("/", headers=HTML)
    serving.http.get("/page/app/main.js")
    assert not [name for name in serving.counts() if 'endpoint="/page' in name or 'endpoint="/"' in name]
