"""The examples of deploy/proxy: Debian's nginx and Caddy, with the very files, before a real server.

Each proxy has a network of its own, so that the ports are those that the files name. Not proven: certificates
of an authority (nginx gets one made here, Caddy makes its own), and HTTP/2 and HTTP/3 from the client.
"""

from __future__ import annotations

import datetime
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.asgi.wrong_keys import BURST
from tests.deploy.image import ROOT
from tests.deploy.sandbox import Network, Running, Sandbox

PROXY = ROOT / "deploy" / "proxy"
DIRECT = "http://127.0.0.1:8000"
KEY, ADMIN = "a-tenants-key", "an-admins-key"
NAMES = {"nginx": "oneseek.example.com", "caddy": "oneseek.localhost"}
"""Caddy has a certificate for any name under localhost, without asking anybody."""
SILENCE = 15
"""Seconds after which a stream that waits sends a comment."""
CROWD = 8
"""Requests of `OCCUPYING` at once: half a million tokens, more than `SILENCE` of work for any processor."""
LONG = {"model": "base", "prompt": "Vem", "max_tokens": 240, "ignore_eos": True}
PLACES = 256
"""Places of the queue that one request may take."""
OCCUPYING = {**LONG, "prompt": ["Vem"] * 16, "n": PLACES // 16}


@dataclass(frozen=True, slots=True)
class Site:
    """A proxy with a server behind it, both running."""

    name: str
    network: Network
    server: Running
    proxy: Running

    def client(self, address: str = "127.0.0.1", key: str = KEY) -> httpx.Client:
        """A client at `address`, to be used inside the network."""
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        return httpx.Client(
            base_url="https://127.0.0.1",
            headers={"Host": self.name, "Authorization": f"Bearer {key}"},
            transport=httpx.HTTPTransport(verify=trusting, local_address=address),
            timeout=60,
        )

    @property
    def named(self) -> dict[str, str]:
        """What an httpx request needs to ask for the name."""
        return {"sni_hostname": self.name}

    def direct(self, path: str, key: str = ADMIN) -> httpx.Response:
        """Ask the server itself; inside the network."""
        return httpx.get(DIRECT + path, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def running(self) -> int:
        """Requests that the server is at."""
        return int(self.direct("/health").json()["queue"]["running"])

    def queued(self) -> int:
        """Requests that wait."""
        return int(self.direct("/health").json()["queue"]["waiting"])


def certificate(folder: Path, name: str) -> None:
    """A certificate for `name` that nobody vouches for, and its key."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    now, subject = datetime.datetime.now(datetime.UTC), x509.Name([])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def nginx(tools: Path, folder: Path) -> list[str]:
    """Debian's own nginx.conf, with the example where Debian has examples."""
    certificate(folder / "tls", NAMES["nginx"])
    etc = folder / "etc"
    subprocess.run(["cp", "-r", str(tools / "root/etc/nginx"), str(etc)], check=True)
    (etc / "conf.d" / "oneseek.conf").write_bytes((PROXY / "nginx.conf").read_bytes())
    (folder / "passwd").write_text("root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n")
    (folder / "group").write_text("root:x:0:\nwww-data:x:33:\n")
    sandbox = Sandbox(
        bwrap=tools / "root/usr/bin/bwrap",
        read_only={
            etc: "/etc/nginx",
            folder / "tls": "/etc/oneseek/tls",
            folder / "passwd": "/etc/passwd",
            folder / "group": "/etc/group",
            tools / "root/usr/sbin/nginx": "/opt/nginx",
        },
        empty=("/tmp", "/run", "/var/log/nginx", "/var/lib/nginx"),
        rights=True,
    )
    return sandbox.command("/opt/nginx", "-g", "daemon off; error_log stderr;")


def caddy(tools: Path, folder: Path) -> list[str]:
    """The example as it is, for a name that needs nobody else's certificate."""
    (folder / "hosts").write_text("127.0.0.1 localhost\n")
    sandbox = Sandbox(
        bwrap=tools / "root/usr/bin/bwrap",
        read_only={
            PROXY / "Caddyfile": "/etc/caddy/Caddyfile",
            folder / "hosts": "/etc/hosts",
            tools / "root/usr/bin/caddy": "/opt/caddy",
        },
        environ={"SITE": NAMES["caddy"], "HOME": "/tmp", "XDG_DATA_HOME": "/tmp/data"},
        rights=True,
    )
    return sandbox.command("/opt/caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile")


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def site(
    request: pytest.FixtureRequest,
    tools: Path,
    bwrap: Path,
    tiny_base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder, network = tmp_path_factory.mktemp(request.param), Network(bwrap)
    options = [
        "--config",
        str(PROXY / "oneseek.yaml"),
        "--base-model",
        str(tiny_base),
        "--home",
        str(folder / "home"),
    ]
    options += ["--threads", "1", "--max-num-seqs", "1", "--max-queue", "4096"]
    options += ["--api-keys", KEY, "--admin-keys", ADMIN]
    if request.param == "caddy":
        options += ["--allowed-hosts", NAMES["caddy"]]
    make: Callable[[Path, Path], list[str]] = {"nginx": nginx, "caddy": caddy}[request.param]
    command = network.enter([sys.executable, "-m", "server", "serve", *options])
    server, proxy = Running(command, folder / "server.log"), None
    try:
        server.until(lambda: server.said("ready on"))
        proxy = Running(network.enter(make(tools, folder)), folder / "proxy.log")
        site = Site(NAMES[request.param], network, server, proxy)
        proxy.until(lambda: network.run(lambda: answers(site)))
        yield site
    finally:
        for running in (proxy, server):
            if running is not None:
                running.end()
        network.close()


def answers(site: Site) -> bool:
    try:
        with site.client() as client:
            return client.get("/ready", extensions=site.named).status_code == 200
    except httpx.TransportError:
        return False


def test_a_stream_arrives_token_by_token(site: Site) -> None:
    def chunks() -> list[bytes]:
        body = {**LONG, "stream": True}
        with (
            site.client() as client,
            client.stream("POST", "/v1/completions", json=body, extensions=site.named) as got,
        ):
            assert got.status_code == 200
            assert got.headers["content-type"].startswith("text/event-stream")
            return list(got.iter_raw())

    events, arrived = 0, list[bytes]()
    for _ in range(5):  # a busy server sends several tokens in one event
        arrived = site.network.run(chunks)
        assert b"".join(arrived).rstrip().endswith(b"data: [DONE]")
        events = b"".join(arrived).count(b"data: ")
        if events > 100:
            break
    # A buffer of 4 KiB, as proxies have, would hold twenty events.
    assert events >= 8
    assert events / len(arrived) < 4


def cancelled(site: Site) -> float:
    """Requests that were ended before their answer; inside the network."""
    lines = site.direct("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("oneseek_cancelled_total{"))


def test_a_client_that_leaves_ends_its_request(site: Site) -> None:
    def leave() -> None:
        body = {**OCCUPYING, "stream": True}
        with (
            site.client() as client,
            client.stream("POST", "/v1/completions", json=body, extensions=site.named) as got,
        ):
            lines = got.iter_lines()  # kept, since its end would be the stream's
            assert next(lines).startswith("data: ")
            assert site.running() > 0

    def ended() -> bool:
        return site.running() == 0

    site.network.run(leave)
    left = time.monotonic()
    while not site.network.run(ended):
        assert time.monotonic() - left < 10
        time.sleep(0.02)
    assert site.network.run(lambda: cancelled(site)) > 0


def test_a_client_that_leaves_before_the_answer_ends_its_request_too(site: Site) -> None:
    def leave() -> None:
        with site.client() as client, pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=OCCUPYING, extensions=site.named, timeout=0.3)

    before = site.network.run(lambda: cancelled(site))
    site.network.run(leave)
    left = time.monotonic()
    while site.network.run(site.running):
        assert time.monotonic() - left < 30
        time.sleep(0.02)
    assert site.network.run(lambda: cancelled(site)) > before, "it was answered to the end"


def test_a_stream_that_waits_is_kept_open(site: Site) -> None:
    """Others are before it in the queue for longer than the silence that a stream may keep."""

    def wait() -> tuple[float, str]:
        with site.client() as client:
            began = time.monotonic()
            body = {**LONG, "max_tokens": 1, "stream": True}
            with client.stream("POST", "/v1/completions", json=body, extensions=site.named) as got:
                line = next(got.iter_lines())
                return time.monotonic() - began, line

    over = threading.Event()
    crowd = [site.network.start(lambda: occupy(site, over)) for _ in range(CROWD)]
    try:
        began = time.monotonic()
        while site.network.run(site.queued) < (CROWD - 1) * PLACES:
            assert time.monotonic() - began < 60
            time.sleep(0.02)
        waited, line = site.network.run(wait)
    finally:
        over.set()
        for busy in crowd:
            busy.result(60)
    assert line == ": keep-alive"
    assert SILENCE - 1 < waited < 2 * SILENCE


def occupy(site: Site, over: threading.Event) -> None:
    """Have the server make long answers, one after another, until it is `over`."""
    body, headers = {**OCCUPYING, "stream": True}, {"Authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{DIRECT}/v1/completions", json=body, headers=headers, timeout=60):
        over.wait(60)


def test_each_client_has_its_own_address(site: Site) -> None:
    def statuses(address: str, times: int, headers: dict[str, str]) -> list[int]:
        with site.client(address, "wrong") as client:
            asked = (client.get("/v1/models", headers=headers, extensions=site.named) for _ in range(times))
            return [answer.status_code for answer in asked]

    def ask() -> None:
        # More than a burst: an address earns a try every five seconds, and a busy machine is slow.
        assert statuses("127.0.0.5", 2 * BURST, {})[-1] == 429
        assert statuses("127.0.0.6", 1, {}) == [401]
        # What a client claims to be is not believed.
        assert 429 in statuses("127.0.0.5", 3, {"X-Forwarded-For": "127.0.0.7"})

    site.network.run(ask)


def test_the_server_is_asked_by_the_name_that_the_client_asked_for(site: Site) -> None:
    def ask() -> None:
        with site.client() as client:
            own = client.get("/v1/models", extensions=site.named)
            page = {"Origin": f"https://{site.name}", "Sec-Fetch-Site": "same-origin"}
            assert (
                client.get("/v1/models", headers=page, extensions=site.named).status_code
                == own.status_code
                == 200
            )
            other = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
            assert client.get("/v1/models", headers=other, extensions=site.named).status_code == 403
            host = client.get("/v1/models", headers={"Host": "elsewhere.example"}, extensions=site.named)
            # nginx passes the name on, Caddy has no such site.
            assert (host.status_code, host.content) != (200, own.content)
            if site.name == NAMES["nginx"]:
                assert host.status_code == 421

    site.network.run(ask)


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/admin/adapters",
        "/admin",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter/",
        "//metrics",
    ],
)
def test_what_is_for_operators_is_not_passed_on(site: Site, path: str) -> None:
    def ask() -> None:
        with site.client(key=ADMIN) as client:
            answer = client.get(f"https://127.0.0.1{path}", extensions=site.named)
            assert answer.status_code in (403, 404)
            assert "x-request-id" not in answer.headers or answer.status_code == 404

    site.network.run(ask)


def test_large_bodies_are_refused_by_the_server_itself(site: Site) -> None:
    def ask() -> None:
        with site.client() as client:
            body = {"model": "base", "prompt": "x" * (5 * 1024 * 1024)}
            answer = client.post("/v1/completions", json=body, extensions=site.named)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")

    site.network.run(ask)


def test_http_leads_to_https(site: Site) -> None:
    def ask() -> httpx.Response:
        return httpx.post("http://127.0.0.1/v1/completions", headers={"Host": site.name}, content=b"{}")

    answer = site.network.run(ask)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://{site.name}/v1/completions"
