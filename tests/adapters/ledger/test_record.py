"""What an entry is: its canonical line, its signature by other means, and records that are refused."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from adapters.ledger import Entry, Ledger, Record
from adapters.ledger.keys import SigningKey
from adapters.ledger.record import MAX_LINE_BYTES, START
from adapters.ledger.seal import BrokenSealError
from tests.adapters.ledger.conftest import record, sha

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_a_line_is_what_the_documentation_says(tmp_path: Path) -> None:
    entry = Ledger.open(tmp_path).append(record(1))
    line = (tmp_path / "ledger.jsonl").read_bytes().removesuffix(b"\n")
    fields = json.loads(line)
    assert line == rfc8785.dumps(fields)
    assert set(fields) == {
        "format", "sequence", "time", "action", "subject", "inputs", "outputs", "metrics", "details", "code",
        "previous", "key", "signature",
    }  # fmt: skip
    assert fields["format"] == "oneseek-ledger-v1"
    assert fields["previous"] == START
    assert fields["inputs"] == {"base": sha("a"), "data": [sha("b"), sha("c")]}
    assert fields["code"]["oneseek"]
    assert entry.hash == f"sha256:{hashlib.sha256(line).hexdigest()}"
    head = json.loads((tmp_path / "head.json").read_bytes())
    assert (head["count"], head["size"], head["hash"]) == (1, len(line) + 1, entry.hash)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_openssl_agrees_about_the_signatures(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    Ledger.open(ledger).append(record(1))
    for file in ("ledger.jsonl", "head.json"):
        fields = json.loads((ledger / file).read_bytes())
        (tmp_path / "signature").write_bytes(base64.b64decode(fields.pop("signature")))
        (tmp_path / "message").write_bytes(rfc8785.dumps(fields))
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(ledger / "public.pem"), "-rawin"]
        files = ["-in", str(tmp_path / "message"), "-sigfile", str(tmp_path / "signature")]
        done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
        assert "Verified Successfully" in done.stdout, done.stderr


@given(
    details=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), PLAIN, max_size=4),
    metrics=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.floats(-1e300, 1e300)),
)
def test_what_goes_in_comes_out(details: dict[str, Any], metrics: dict[str, float]) -> None:
    made = Record(action="eval", subject="a@v1", metrics=metrics, details=details)
    entry = Entry.write(made, 1, START, {"oneseek": "1"}, SigningKey.generate())
    again = Entry.read(entry.line)
    assert again == entry
    assert again.record.metrics == metrics
    assert again.record.details == details


@pytest.mark.parametrize(
    ("given_fields", "named"),
    [
        ({"action": "Train"}, "action 'Train'"),
        ({"action": ""}, "action ''"),
        ({"subject": ""}, "subject ''"),
        ({"subject": "a\nb"}, "subject"),
        ({"inputs": {"base": "abc"}}, r"inputs\.base .*'abc'.*sha256:"),
        ({"inputs": {"data": (sha("a"), "sha256:A")}}, r"inputs\.data"),
        ({"inputs": {"The Base": sha("a")}}, "inputs .*'The Base'"),
        ({"outputs": {"adapter": sha("g")}}, r"outputs\.adapter"),
        ({"metrics": {"loss": math.nan}}, r"metrics\.loss .*\bnan\b"),
        ({"metrics": {"loss": math.inf}}, r"metrics\.loss .*\binf\b"),
        ({"metrics": {"good": True}}, r"metrics\.good .*\bTrue\b"),
        ({"details": {"seed": 2**60}}, f"details .*{2**60}"),
        ({"details": {"path": Path("x")}}, "details .*Path"),
        ({"details": {"text": "\ud800"}}, "details .*UTF-8"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(given_fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Record(**dict[str, Any](action="train", subject="a@v1") | given_fields)


def test_a_refused_entry_leaves_nothing(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()
    with pytest.raises(ValueError, match=r"Ledger\.rotate"):
        ledger.append(Record(action="rotate", subject="a"))
    assert list(ledger.entries()) == []
    assert not (tmp_path / "ledger").exists()
    ledger.append(record(0))
    with pytest.raises(ValueError, match=str(MAX_LINE_BYTES - 1)):
        ledger.append(Record(action="train", subject="a", details={"long": "x" * (1 << 20)}))
    assert ledger.verify().state == "intact"
    assert ledger.verify().count == 1


def test_large_numbers_and_twice_named_members_are_not_canonical(tmp_path: Path) -> None:
    line = Ledger.open(tmp_path).append(record(1)).line
    for wrong in (
        line.replace(b'"seed":1', b'"seed":1.0'),
        line.replace(b'"seed":1', b'"seed":1,"seed":1'),
        line.replace(b'"seed":1', b'"seed":' + b"9" * 5000),
        line.replace(b'"seed":1', b'"seed":NaN'),
        line.replace(b'"seed":1', b'"seed":' + b"[" * 100_000),
        b"\xef\xbb\xbf" + line,
        b" " + line,
        b"[]",
        b"",
    ):
        with pytest.raises(BrokenSealError):
            Entry.read(wrong)
