"""A real server with the mini base, and headless Chromium that looks at its page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Route,
    expect,
    sync_playwright,
)

from tests.server.server_process import heed_interrupts

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = ROOT / "adapters" / "mini" / "weights"
SHIPPED = "oneseek-mini-sv"
PATIENCE = 10_000
"""Milliseconds that anything on a page may take."""
REFUSALS = re.compile(r"Failed to load resource")
"""What the console says of a status that a test asked for."""


expect.set_options(timeout=PATIENCE)


@dataclass
class Server:
    """`oneseek serve` in a process of its own, which can end and come back on its port."""

    folder: Path
    settings: Mapping[str, str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve", "--port", str(self.port), "--threads", "1"],
                cwd=self.folder,
                env=self.environment(),
                stdout=log,
                stderr=log,
                preexec_fn=heed_interrupts if sys.platform != "win32" else None,
            )
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if httpx.get(self.url + "ready").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def run(self, *words: str) -> None:
        """A verb of the command line, over the same home."""
        command = [sys.executable, "-m", "server", *words]
        subprocess.run(command, cwd=self.folder, env=self.environment(), check=True, capture_output=True)

    def add_versions(self) -> None:
        """Put the Swedish adapter into the registry, and a v1.1 of it, which speaks English better."""
        second = self.folder / "second"
        shutil.copytree(WEIGHTS / "oneseek-mini-en", second)
        change_json(second / "oneseek.json", alias=SHIPPED, version="v1.1", language="sv")
        change_json(second / "adapter_config.json", lora_alpha=24)
        self.run("adapters", "add", str(WEIGHTS / SHIPPED))
        self.run("adapters", "add", str(second))

    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(ROOT), "ONESEEK_HOME": str(self.home), "ONESEEK_LOG_LEVEL": "warning"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
        return kept | own | dict(self.settings)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def change_json(file: Path, **fields: object) -> None:
    """Set fields of the object in a file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


ServerMaker = Callable[..., Server]


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerMaker]:
    made: list[Server] = []

    def make(**settings: str) -> Server:
        environment = {f"ONESEEK_{name.upper()}": value for name, value in settings.items()}
        made.append(Server(tmp_path_factory.mktemp("server"), environment))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def server(make_server: ServerMaker) -> Server:
    """Open to all but for changes, with two versions of the Swedish adapter, both in the ledger."""
    made = make_server(admin_keys="root")
    made.add_versions()
    made.start()
    return made


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = str(pytestconfig.getoption("chromium"))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """One reader of the page."""

    page: Page
    context: BrowserContext
    problems: list[str]
    """What the console complained of."""
    ignored: re.Pattern[str] = REFUSALS

    def go(self, server: Server, view: str = "ask") -> Page:
        self.page.goto(f"{server.url}#/{view}")
        return self.page

    def change_requests(self, **fields: Any) -> None:
        """Add fields to every question on its way, as another client might have sent them."""

        def changed(route: Route) -> None:
            body = json.loads(route.request.post_data or "{}")
            route.continue_(post_data=json.dumps(body | fields))

        self.page.route(re.compile(r"/v1/chat/completions$|multi-model-query$"), changed)


VisitMaker = Callable[..., Visit]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[VisitMaker]:
    """Opens a page; at the end of the test no policy may have been violated, and no script have failed."""
    visits: list[Visit] = []

    def begin(
        *, width: int = 1280, height: int = 800, scheme: str = "light", locale: str = "en-US", **more: Any
    ) -> Visit:
        look: Any = scheme
        size: Any = {"width": width, "height": height}
        context = chromium.new_context(viewport=size, color_scheme=look, locale=locale, **more)
        context.set_default_timeout(PATIENCE)
        page, problems = context.new_page(), list[str]()

        def heard(message: ConsoleMessage) -> None:
            if message.type == "error" and not visit.ignored.search(message.text):
                problems.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
        visit = Visit(page, context, problems)
        visits.append(visit)
        return visit

    yield begin
    for one in visits:
        one.context.close()
    assert [problem for one in visits for problem in one.problems] == []
