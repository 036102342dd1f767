"""The view Compare: all voices at once, what differs, and who dissents."""

from __future__ import annotations

import json
import re

from playwright.sync_api import expect

from tests.page.suite.acts import ask
from tests.page.suite.conftest import Server, VisitMaker


def test_every_voice_answers_side_by_side(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server, "compare")
    expect(page.locator(".chip")).to_have_count(3)
    ask(page, "Vem är du?", "Question")
    columns = page.locator(".column")
    expect(columns).to_have_count(3)
    expect(columns.locator("details.receipt")).to_have_count(3)
    tops = {round((column.bounding_box() or {"y": 0})["y"]) for column in columns.all()}
    assert len(tops) == 1
    expect(page.locator(".verdict")).to_contain_text(re.compile(r"Agreement 0\.\d\d"))
    agreement = page.locator(".agreement")
    agreement.focus()
    expect(page.get_by_role("tooltip")).to_contain_text("chrF")
    assert columns.locator("mark").count() > 0
    # What all of them say is not marked.
    first = columns.first.locator(".said").inner_text()
    marked = " ".join(columns.first.locator("mark").all_inner_texts())
    assert len(marked) < len(first)


def test_two_versions_of_one_adapter(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server, "compare")
    for name in ("base", "oneseek-mini-en", "oneseek-mini-sv"):
        page.get_by_label("Add a voice…").wait_for()
        if name != "oneseek-mini-sv":
            page.get_by_role("button", name=f"Remove {name}").click()
    page.get_by_label("Add a voice…").select_option("oneseek-mini-sv@v1.1")
    with page.expect_request("**/api/oqt/multi-model-query") as sent:
        ask(page, "Vem är du?", "Question")
    assert json.loads(sent.value.post_data or "")["models"] == ["oneseek-mini-sv", "oneseek-mini-sv@v1.1"]
    receipts = page.locator(".column details.receipt summary")
    expect(receipts.first).to_contain_text("oneseek-mini-sv@v1.0")
    expect(receipts.last).to_contain_text("oneseek-mini-sv@v1.1")


def test_stopping_says_so_in_each_column(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server, "compare")
    reader.change_requests(ignore_eos=True, min_tokens=900, max_tokens=900)
    expect(page.locator(".chip")).to_have_count(3)
    ask(page, "Vem är du?", "Question")
    expect(page.locator(".column .said").first).to_have_text(re.compile(r"\w+ \w+"))
    page.keyboard.press("Escape")
    expect(page.get_by_text("Stopped here.")).to_have_count(3)
