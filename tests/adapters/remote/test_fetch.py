"""From a URL into the registry: what is taken, what is refused and why, and that nothing is left of that."""

from __future__ import annotations

import errno
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.errors import AdapterError, RegistryError
from adapters.lora.digest import adapter_digest
from adapters.remote import stores
from adapters.remote.fetch import FetchLimits
from tests.adapters.remote.door import SECRET, Door
from tests.adapters.remote.hosts import (
    WebHost,
    cut,
    endless,
    redirect,
    send,
    silent,
    status,
    trickle,
    web_host,
)

Make = Callable[..., Path]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def test_what_is_fetched_is_as_if_it_were_local(door: Door, web: WebHost, make_adapter: Make) -> None:
    folder = make_adapter("zero-v1.1-SV", manifest={"about": {"by": "me"}})
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n\nMine.\n", encoding="utf-8")
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    added = door.add(web.put("deep/zero-v1.1-SV", folder), progress=progress)
    assert (added.adapter.full_name, added.adapter.language) == ("zero-sv@v1.1", "sv")
    assert added.adapter.digest == adapter_digest(folder)
    assert added.adapter.path == door.registry.folder / "zero-sv" / "v1.1"
    assert (added.adapter.path / "README.md").read_text("utf-8").endswith("Mine.\n")
    assert not (door.home / "fetch").exists()
    size = (folder / WEIGHTS).stat().st_size
    assert seen[-1] == (size, size)


def test_the_ledger_knows_the_url_and_no_secret(door: Door, web: WebHost, make_adapter: Make) -> None:
    url = web.put("zero-v1.0", make_adapter("zero-v1.0"))
    added = door.add(f"{url}?X-Amz-Signature={SECRET}")
    assert all(path.endswith(f"?X-Amz-Signature={SECRET}") for path in web.asked)
    [entry] = door.ledger.entries()
    assert entry.record.details["url"] == url
    assert entry.record.outputs == {"adapter": added.adapter.digest}
    for path in door.home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_a_digest_pins(door: Door, web: WebHost, make_adapter: Make) -> None:
    folder = make_adapter("zero-v1.0")
    url, digest = web.put("zero-v1.0", folder), adapter_digest(folder)
    other = "sha256:" + "0" * 64
    found = door.refused(url, digest=other)
    assert found.failure == "mismatch"
    assert digest in str(found)
    assert other in str(found)
    assert door.add(url, digest=digest).new
    assert not door.add(url, digest=digest).new


def test_what_the_intake_refuses_is_named_by_its_url(door: Door, web: WebHost, make_adapter: Make) -> None:
    url = web.put("dora", make_adapter("dora", config={"use_dora": True}))
    with pytest.raises(AdapterError) as refused:
        door.add(url, alias="dora")
    assert str(refused.value).startswith(f"{url}/{CONFIG}: use_dora = True")
    assert str(door.home) not in str(refused.value)
    assert not any(WEIGHTS in path for path in web.asked), "the config decides before the weights come"
    other = web.put("other", make_adapter("other", manifest={"base_digest": "sha256:" + "1" * 64}))
    with pytest.raises(AdapterError) as refused:
        door.add(other, alias="other")
    assert str(door.home) not in f"{refused.value} {refused.value.public}"
    door.add(web.put("zero-v1.0", make_adapter("zero-v1.0")))
    with pytest.raises(RegistryError) as conflict:
        door.add(web.put("zero", make_adapter("zero", rank=8)), alias="zero", version="v1.0")
    assert str(door.home) not in str(conflict.value).replace(str(door.registry.folder), "")
    assert not (door.home / "fetch").exists()


def test_a_name_that_gives_no_alias_asks_for_one(door: Door, web: WebHost, make_adapter: Make) -> None:
    url = web.put("base", make_adapter("mine"))
    with pytest.raises(AdapterError, match="NAME=PATH"):
        door.add(url)
    assert door.add(url, alias="mine").adapter.alias == "mine"


def test_a_pickle_is_not_fetched(door: Door, web: WebHost, make_adapter: Make) -> None:
    web.put("old", make_adapter("old"))
    del web.contents[f"/old/{WEIGHTS}"]
    web.contents["/old/adapter_model.bin"] = web.contents["/older/adapter.pth"] = b"pickle"
    for name, file in (("old", "adapter_model.bin"), ("older", "adapter.pth")):
        found = door.refused(f"{web.url}/{name}")
        assert found.failure == "not_adapter"
        assert f"oneseek adapters import FOLDER/{file}" in str(found)
    del web.contents["/old/adapter_model.bin"]
    assert door.refused(f"{web.url}/old").failure == "not_adapter"


def test_a_file_is_not_a_folder(door: Door, web: WebHost) -> None:
    for name, remedy in (
        ("old.pth", "oneseek adapters import old.pth"),
        ("a/adapter_model.bin", "oneseek adapters import adapter_model.bin"),
        (f"a/{WEIGHTS}", "URL of the folder"),
        (f"a/{CONFIG}", "URL of the folder"),
    ):
        found = door.refused(f"{web.url}/{name}")
        assert found.failure == "not_adapter"
        assert remedy in str(found)
    assert not web.asked


@pytest.mark.parametrize(
    ("codes", "failure"),
    [
        ((404, 410), "missing"),
        ((401, 403), "forbidden"),
        ((204, 300, 400, 429, 500, 503), "unreachable"),
    ],
)
def test_a_status_says_what_is_wrong(door: Door, web: WebHost, codes: tuple[int, ...], failure: str) -> None:
    for code in codes:
        web.answers["/a"] = status(code)
        assert door.refused(f"{web.url}/a").failure == failure, code


def test_optional_files_that_are_not_shown_are_not_there(
    door: Door, web: WebHost, make_adapter: Make
) -> None:
    url = web.put("zero-v1.0", make_adapter("zero-v1.0"))
    for name in ("oneseek.json", "README.md"):
        web.answers[f"/zero-v1.0/{name}"] = status(403)
    assert door.add(url).new
    web.answers["/zero-v1.0/oneseek.json"] = status(500)
    assert door.refused(url).failure == "unreachable"


def test_bytes_are_counted_as_they_come(door: Door, web: WebHost, make_adapter: Make) -> None:
    url = web.put("zero-v1.0", make_adapter("zero-v1.0"))
    size = sum(map(len, web.contents.values()))
    small = FetchLimits(max_bytes=size - 1)
    assert door.refused(url, limits=small).failure == "too_large"
    for answer in (endless(), endless(10**12)):
        web.answers[f"/zero-v1.0/{WEIGHTS}"] = answer
        assert door.refused(url, limits=FetchLimits(max_bytes=8 << 20)).failure == "too_large"
    web.answers.clear()
    web.answers[f"/zero-v1.0/{CONFIG}"] = endless()
    assert door.refused(url).failure == "too_large"
    web.answers.clear()
    assert door.add(url, limits=FetchLimits(max_bytes=size)).new


def test_what_breaks_off_is_not_taken(door: Door, web: WebHost, make_adapter: Make) -> None:
    url = web.put("zero-v1.0", make_adapter("zero-v1.0"))
    web.answers[f"/zero-v1.0/{WEIGHTS}"] = cut(web.contents[f"/zero-v1.0/{WEIGHTS}"])
    assert door.refused(url).failure == "unreachable"


def test_what_is_compressed_is_not_taken(door: Door, web: WebHost, make_adapter: Make) -> None:
    url = web.put("zero-v1.0", make_adapter("zero-v1.0"))
    web.answers["/zero-v1.0"] = lambda handler: send(handler, b"{}", Content_Encoding="gzip")
    assert door.refused(url).failure == "unreachable"


def test_a_slow_host_is_given_up(door: Door, web: WebHost, monkeypatch: pytest.MonkeyPatch) -> None:
    web.answers["/a"] = trickle(0.02, threading.Event())
    began = time.monotonic()
    assert door.refused(f"{web.url}/a", limits=FetchLimits(seconds=0.3)).failure == "timeout"
    monkeypatch.setattr(stores, "READ_SECONDS", 0.2)
    ended = threading.Event()
    web.answers["/b"] = silent(ended)
    assert door.refused(f"{web.url}/b").failure == "timeout"
    ended.set()
    assert time.monotonic() - began < 15


def test_a_full_disk_is_no_fault_of_the_url(door: Door, web: WebHost, make_adapter: Make) -> None:
    def full(_done: int, _total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    url = web.put("zero-v1.0", make_adapter("zero-v1.0"))
    with pytest.raises(OSError, match="No space left") as refused:
        door.add(url, progress=full)
    assert refused.value.errno == errno.ENOSPC
    assert not door.files()


def test_a_fetch_that_is_stopped_leaves_nothing(door: Door, web: WebHost) -> None:
    stop, ended = threading.Event(), threading.Event()
    web.answers["/a"] = trickle(0.02, ended)
    threading.Timer(0.2, stop.set).start()
    assert door.refused(f"{web.url}/a", stop=stop).failure == "stopped"
    assert ended.wait(5), "the host sees that nobody reads any more"


def test_redirects_are_followed_only_if_asked(door: Door, web: WebHost, make_adapter: Make) -> None:
    target = web.put("zero-v1.0", make_adapter("zero-v1.0"))
    web.answers["/moved"] = redirect(target)
    assert door.refused(f"{web.url}/moved", follow_redirects=False).failure == "unreachable"
    assert door.add(f"{web.url}/moved", alias="zero").new
    [entry] = door.ledger.entries()
    assert entry.record.details["url"] == f"{web.url}/moved"
    for number, place in enumerate(
        ("http://example.com/a", "file:///etc", "https://user:pw@example.com/a", f"{web.url}/round")
    ):
        web.answers["/round"] = redirect(place)
        assert door.refused(f"{web.url}/round").failure == "unreachable", number


def test_what_cannot_be_reached_says_why(door: Door) -> None:
    with web_host() as gone:
        url = f"{gone.url}/a"
    closed, unresolved = door.refused(url), door.refused("https://no-such-host.invalid/a")
    assert (closed.failure, unresolved.failure) == ("unreachable", "unreachable")
    assert ("DNS" in str(closed), "DNS" in str(unresolved)) == (False, True)


def test_a_certificate_has_to_be_trusted(
    door: Door, make_adapter: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with web_host(context) as host:
        url = host.put("zero-v1.0", make_adapter("zero-v1.0")).replace("http:", "https:")
        assert "certificate" in str(door.refused(url))
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert door.add(url).new


def test_a_missing_package_names_its_extra(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(stores.importlib.util, "find_spec", find_nothing)
    for url, extra in (
        ("s3://bucket/a", "s3"),
        ("gs://bucket/a", "gs"),
        ("hf://org/a", "hf"),
        ("https://example.com/a", "https"),
        ("http://127.0.0.1/a", "https"),
    ):
        found = door.refused(url)
        assert found.failure == "extra"
        assert f"pip install 'oneseek[{extra}]'" in str(found)


def test_what_a_killed_fetch_left_is_cleared(door: Door, web: WebHost, make_adapter: Make) -> None:
    left = door.home / "fetch" / "0123456789abcdef"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    left.with_suffix(".lock").touch()
    door.add(web.put("zero-v1.0", make_adapter("zero-v1.0")))
    assert not (door.home / "fetch").exists()


def certificate(folder: Path) -> Path:
    """A key and its own certificate for 127.0.0.1, in one PEM file."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "host.pem"
    path.write_bytes(secret + made.public_bytes(encoding))
    return path
