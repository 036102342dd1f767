"""The view Live, whose charts are there at once; and what any view shows if the server is gone."""

from __future__ import annotations

import re

import httpx
from playwright.sync_api import expect

from tests.page.suite.acts import answers, ask, whole
from tests.page.suite.conftest import Server, ServerMaker, VisitMaker
from tests.server.http_server import eventually


def asked_before(server: Server) -> None:
    """Ask, and wait until a sample tells of it."""
    body = {"model": "oneseek", "messages": [{"role": "user", "content": "Vem är du?"}], "max_tokens": 200}
    for _ in range(3):
        httpx.post(server.url + "v1/chat/completions", json=body | {"ignore_eos": True}, timeout=60)

    def told() -> bool:
        samples = httpx.get(server.url + "metrics/recent").json()["data"]
        return any(sample["tokens"].get("oneseek-mini-sv") for sample in samples)

    assert eventually(told, 12)


def test_six_charts_are_there_at_once(visit: VisitMaker, server: Server) -> None:
    asked_before(server)
    page = visit().go(server, "live")
    charts = page.locator("figure.chart")
    expect(charts).to_have_count(6)
    tokens = charts.filter(has=page.get_by_role("heading", name="Tokens per second"))
    expect(tokens).to_contain_text("oneseek-mini-sv")
    expect(tokens.get_by_role("img")).to_have_attribute("aria-label", re.compile("oneseek-mini-sv"))
    expect(
        charts.filter(has=page.get_by_role("heading", name="Routed requests by language"))
    ).to_contain_text("Swedish")
    plot = charts.nth(1).locator(".u-over")
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 20)
    # One crosshair goes through all that are drawn.
    drawn = charts.locator(".u-over").count()
    expect(charts.locator(".u-cursor-x:not(.u-off)")).to_have_count(drawn)


def test_nothing_to_show_is_said(visit: VisitMaker, make_server: ServerMaker) -> None:
    fresh = make_server()
    fresh.start()
    page = visit().go(fresh, "live")
    expect(
        page.get_by_text(re.compile("The first figures appear|No requests in the last")).first
    ).to_be_visible()
    expect(page.get_by_text("No requests in the last 15 minutes").first).to_be_visible(timeout=15_000)
    fresh.kill()


def test_a_server_that_goes_and_comes_back(visit: VisitMaker, make_server: ServerMaker) -> None:
    fickle = make_server()
    fickle.start()
    reader = visit()
    page = reader.go(fickle)
    expect(page.get_by_label("Voice").locator("option")).to_have_count(5)
    reader.change_requests(ignore_eos=True, min_tokens=900, max_tokens=900)
    ask(page, "Vem är du?")
    expect(answers(page).locator(".markdown")).to_have_text(re.compile(r"\w+ \w+"))
    fickle.kill()
    expect(answers(page)).to_contain_text("The answer was cut off here.")
    gone = page.get_by_text("The server does not answer.")
    expect(gone).to_be_visible()
    expect(page.locator("main")).to_have_class("stale")
    answers(page).get_by_role("button", name="Ask again").click()
    expect(answers(page).get_by_role("alert")).to_contain_text("The connection to the server was lost.")
    fickle.start()
    expect(gone).to_be_hidden()
    page.unroute_all()
    answers(page).get_by_role("button", name="Ask again").click()
    whole(page)
    fickle.kill()
