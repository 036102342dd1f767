"""For every reader: axe-core, a keyboard alone, a narrow screen, and no motion where it is not wanted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.page.suite.acts import ask, whole
from tests.page.suite.conftest import Server, Visit, VisitMaker

VIEWS = ("ask", "compare", "adapters/sv", "live")
SERIOUS = {"serious", "critical"}
AXE = re.compile(r"Applying inline style violates|Failed to load resource")


@pytest.fixture(scope="session")
def axe(pytestconfig: pytest.Config) -> str:
    return Path(str(pytestconfig.getoption("axe"))).read_text(encoding="utf-8")


def findings(visit: Visit, axe: str) -> list[str]:
    """What axe-core finds to be serious, evaluated from outside: the policy refuses its script.

    The policy refuses its style too, which is no fault of the page.
    """
    visit.ignored = AXE
    session = visit.context.new_cdp_session(visit.page)
    session.send("Runtime.evaluate", {"expression": axe})
    run = "axe.run(document).then((found) => JSON.stringify(found.violations))"
    answer: Any = session.send(
        "Runtime.evaluate", {"expression": f"{run}", "awaitPromise": True, "returnByValue": True}
    )
    violations = json.loads(answer["result"]["value"])
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for one in violations
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def fill(page: Page, view: str) -> None:
    """Have the view show what it can."""
    if view == "ask":
        ask(page, "Vem är du?")
        whole(page).locator("summary").click()
        page.get_by_label("Voice").select_option("blend")
    elif view == "compare":
        expect(page.locator(".chip")).to_have_count(3)
        ask(page, "Vem är du?", "Question")
        expect(page.locator(".column details.receipt")).to_have_count(3)
    elif view.startswith("adapters"):
        expect(page.locator(".graph")).to_be_visible()
    else:
        expect(page.locator("figure.chart")).to_have_count(6, timeout=15_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(
    visit: VisitMaker, server: Server, axe: str, view: str, scheme: str
) -> None:
    reader = visit(scheme=scheme)
    page = reader.go(server, view)
    fill(page, view)
    assert findings(reader, axe) == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert findings(reader, axe) == []
    page.get_by_role("button", name="Key").click()
    assert findings(reader, axe) == []


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_a_phone(visit: VisitMaker, server: Server, view: str) -> None:
    page = visit(width=360, height=740).go(server, view)
    fill(page, view)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    navigation = page.get_by_role("navigation").bounding_box()
    assert navigation is not None
    assert navigation["y"] > 600
    small = page.evaluate(
        """[...document.querySelectorAll("nav a, nav button, .composer button")]
        .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 32).length"""
    )
    assert small == 0


def test_a_keyboard_is_enough(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server)
    expect(page.get_by_role("button", name="Vem är du?")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Vem är du?")).to_be_focused()
    page.keyboard.press("Enter")
    whole(page)
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("Who")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("are you?")
    page.keyboard.press("Enter")
    expect(page.locator("section.question").last.locator(".said")).to_have_text("Who\nare you?")
    whole(page, 2)


def test_motion_that_is_not_wanted(visit: VisitMaker, server: Server) -> None:
    page = visit(reduced_motion="reduce").go(server)
    names = page.evaluate(
        """(() => { const one = document.createElement("div"); one.className = "skeleton";
        one.append(document.createElement("span")); document.body.append(one);
        return getComputedStyle(one.firstChild).animationName; })()"""
    )
    assert names == "none"


@pytest.mark.parametrize("view", ["adapters/%", "constructor", "toString", "__proto__", "nowhere"])
def test_an_address_that_names_nothing_still_opens_a_view(
    visit: VisitMaker, server: Server, view: str
) -> None:
    page = visit().go(server, view)
    heading = "Adapters" if view.startswith("adapters") else "Ask a question"
    expect(page.get_by_role("heading", name=heading)).to_be_visible()
