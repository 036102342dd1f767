"""The pictures of the page in docs/pictures: each view, wide and narrow, light and dark.

    python -m tests.page.screenshots CHROMIUM FOLDER [SECONDS]

A real server with the mini base answers; the charts show SECONDS (150) of real requests.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.page.suite.acts import ask, give_key, whole
from tests.page.suite.conftest import SHIPPED, Server

WIDE, NARROW = (1200, 780), (390, 780)
LOAD_SECONDS = 150
PATIENCE = 15_000
QUESTIONS = (
    "Vem är du?", "What can you do?", "Räkna 23 + 19", "Who are you?", "Vad heter du?", "Tell me a story",
    "Vilken dag är det i morgon?", "What is the capital of Sweden?", "Hvad hedder du på dansk?",
)  # fmt: skip
VOICES = ("oneseek", "oneseek", "oneseek", "base", "sv=0.5,en=0.5")
ADMIN = "root"


@dataclass(frozen=True, slots=True)
class Picture:
    """One view as it is shown."""

    name: str
    view: str
    act: Callable[[Page], None]
    size: tuple[int, int] = WIDE
    scheme: Literal["light", "dark"] = "light"
    locale: str = "en-US"


def asked(page: Page) -> None:
    page.get_by_role("button", name="Vem är du?").click()
    whole(page).wait_for()
    ask(page, "What can you do?")
    whole(page, 2).locator("summary").click()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")


def blended(page: Page) -> None:
    page.get_by_label("Röst").select_option("blend")
    ask(page, "Vem är du?", "Ditt meddelande")
    whole(page).wait_for()


def compared(page: Page) -> None:
    page.locator(".chip").nth(2).wait_for()
    # By its alias it is one of the two, as the canary has it.
    page.get_by_role("button", name=f"Remove {SHIPPED}").click()
    for version in ("v1.0", "v1.1"):
        page.get_by_label("Add a voice…").select_option(f"{SHIPPED}@{version}")
    ask(page, "Vem är du?", "Question")
    page.locator(".agreement").wait_for()


def opened(page: Page) -> None:
    page.locator(".graph").wait_for()


def confirming(page: Page) -> None:
    opened(page)
    page.get_by_role("button", name="Key").click()
    give_key(page, ADMIN)
    page.get_by_role("button", name="Promote").click()


def charted(page: Page) -> None:
    page.locator(".chart .plot").first.wait_for()
    page.wait_for_timeout(600)
    box = page.locator(".chart .u-over").first.bounding_box()
    if box is not None:
        page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 40)
    page.wait_for_timeout(200)


PICTURES = (
    Picture("ask", "ask", asked),
    Picture("ask-dark-narrow", "ask", blended, NARROW, "dark", "sv-SE"),
    Picture("compare", "compare", compared),
    Picture("compare-narrow", "compare", compared, NARROW),
    Picture("adapters", f"adapters/{SHIPPED}", confirming, (1200, 960)),
    Picture("adapters-dark-narrow", f"adapters/{SHIPPED}", opened, NARROW, "dark"),
    Picture("live-dark", "live", charted, WIDE, "dark"),
    Picture("live-narrow", "live", charted, NARROW),
)


def main() -> None:
    """Make all of them."""
    program, folder = sys.argv[1], Path(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else LOAD_SECONDS
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="oneseek-pictures-") as scratch, serving(Path(scratch)) as server:
        keep_asking(server, seconds)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for picture in PICTURES:
                (folder / f"{picture.name}.png").write_bytes(take(browser, server, picture))
            browser.close()


@contextmanager
def serving(scratch: Path) -> Generator[Server]:
    """A server with a canary of the Swedish adapter, which is asked a few questions."""
    server = Server(scratch, {"ONESEEK_ADMIN_KEYS": ADMIN})
    server.add_versions()
    server.start()
    try:
        shares = {"shares": {"v1.0": 80, "v1.1": 20}}
        headers = {"Authorization": f"Bearer {ADMIN}"}
        httpx.post(f"{server.url}admin/adapters/{SHIPPED}/canary", json=shares, headers=headers)
        yield server
    finally:
        server.kill()


def keep_asking(server: Server, seconds: float) -> None:
    """Ask as two clients would, for a while."""
    end = time.monotonic() + seconds

    def client(seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while time.monotonic() < end:
                question = chance.choice(QUESTIONS)
                body = {
                    "model": chance.choice(VOICES),
                    "messages": [{"role": "user", "content": question}],
                    "max_tokens": chance.randint(8, 80),
                    "ignore_eos": True,
                }
                http.post("v1/chat/completions", json=body)
                time.sleep(chance.random())

    clients = [threading.Thread(target=client, args=(seed,)) for seed in (1, 2)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()


def take(browser: Browser, server: Server, picture: Picture) -> bytes:
    """A picture as PNG."""
    width, height = picture.size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=picture.scheme, locale=picture.locale
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{server.url}#/{picture.view}")
    picture.act(page)
    page.wait_for_timeout(300)
    taken = page.screenshot(animations="disabled", caret="hide")
    context.close()
    return taken


if __name__ == "__main__":
    main()
