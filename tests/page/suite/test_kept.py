"""Conversations in the browser: kept, carried to another one, shared by two tabs, and damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.suite.acts import answers, ask, receipts, whole
from tests.page.suite.conftest import Server, VisitMaker


def test_conversations_are_kept_and_carried(visit: VisitMaker, server: Server, tmp_path: Path) -> None:
    page = visit().go(server)
    ask(page, "Vem är du?")
    whole(page)
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("heading", name="Ask a question")).to_be_visible()
    page.get_by_role("button", name="Conversations", exact=True).click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / "saved.json"
    saved.value.save_as(file)

    other = visit().go(server)
    other.get_by_role("button", name="Conversations", exact=True).click()
    other.get_by_label("Import").set_input_files(file)
    expect(whole(other).locator("summary")).to_contain_text("oneseek-mini-sv@v1.0")
    broken = tmp_path / "broken.json"
    broken.write_text('{"conversations": [{"format": 1, "id": "a", "nodes": {"__proto__": {}}}]}')
    other.get_by_label("Import").set_input_files(broken)
    expect(other.get_by_text("broken.json contains no conversations")).to_be_visible()
    other.get_by_role("button", name="Delete: Vem är du?").click()
    other.get_by_role("button", name="Delete for good?").click()
    expect(receipts(other)).to_have_count(0)


def test_two_tabs_keep_what_either_asks(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    first = reader.go(server)
    ask(first, "Vem är du?")
    whole(first)
    second = reader.context.new_page()
    second.goto(server.url)
    expect(receipts(second)).to_have_count(1)
    ask(second, "Who are you?")
    whole(second, 2)
    # The first tab shows what the second asked, and goes on from there.
    whole(first, 2)
    ask(first, "What can you do?")
    whole(first, 3)
    whole(second, 3)
    first.reload()
    expect(first.locator("section.question")).to_contain_text(
        ["Vem är du?", "Who are you?", "What can you do?"]
    )


def test_an_answer_in_another_tab_goes_on(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    first = reader.go(server)
    reader.change_requests(ignore_eos=True, min_tokens=400, max_tokens=400)
    ask(first, "Vem är du?")
    expect(answers(first).locator(".markdown")).to_have_text(re.compile(r"\w+ \w+"))
    first.wait_for_timeout(500)
    second = reader.context.new_page()
    second.goto(server.url)
    expect(answers(second)).to_have_count(1)
    # Asked while the first tab writes, too.
    ask(second, "Who are you?")
    expect(answers(first).first).to_contain_text("The answer reached its maximum length.")
    whole(second, 2)
    expect(answers(second).first).to_contain_text("The answer reached its maximum length.")
    expect(answers(second).first).not_to_contain_text("cut off")


def test_a_browser_that_keeps_nothing_can_ask_too(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    blocked = "{ get() { throw new DOMException('blocked', 'SecurityError'); } }"
    reader.page.add_init_script(f"Object.defineProperty(window, 'localStorage', {blocked})")
    page = reader.go(server)
    ask(page, "Vem är du?")
    whole(page)
    page.get_by_role("button", name="Conversations", exact=True).click()
    expect(page.get_by_role("region", name="Conversations")).to_contain_text("Vem är du?")


def test_a_full_storage_is_said(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    page.evaluate(
        """() => { for (let size = 2 ** 22; size; size >>= 1) {
        try { for (;;) localStorage.setItem("x" + Math.random(), "x".repeat(size)); } catch {} } }"""
    )
    page.reload()
    ask(page, "Vem är du?")
    whole(page)
    expect(page.get_by_role("alert")).to_contain_text("The browser's storage is full")


ROUTE: Mapping[str, object] = {"reason": "model", "language": "sv", "confidence": 1, "runners_up": []}
RECEIPT: Mapping[str, object] = {"adapter": "base", "request_id": "r", "digest": None, "route": ROUTE}


def conversation(answer: Mapping[str, object], identity: str = "b") -> str:
    question = {"id": "a", "parent": "", "role": "user", "text": "Asked?", "at": 1}
    answered = {
        "id": identity,
        "parent": "a",
        "role": "assistant",
        "text": "Answered.",
        "at": 2,
        "state": "done",
    }
    nodes = {"a": question, identity: answered | dict(answer)}
    children = {"": ["a"], "a": [identity]}
    kept = {"format": 1, "id": "c", "created": 1, "updated": 2, "title": "Asked?", "nodes": nodes}
    return json.dumps({"format": 1, "conversations": [kept | {"children": children, "chosen": {}}]})


@pytest.mark.parametrize(
    ("answer", "identity"),
    [
        ({"receipt": {**RECEIPT, "route": {**ROUTE, "language": 5}}}, "b"),
        ({"receipt": {**RECEIPT, "route": {**ROUTE, "language": []}}}, "b"),
        ({"receipt": {**RECEIPT, "digest": 7}}, "b"),
        ({"receipt": {**RECEIPT, "tokens_per_second": {"toLocaleString": 1}}}, "b"),
        ({"receipt": {**RECEIPT, "first_token_seconds": [[]]}}, "b"),
        (
            {
                "receipt": RECEIPT,
                "usage": {
                    "prompt_tokens": 1,
                    "completion_tokens": 1,
                    "prompt_tokens_details": {"cached_tokens": {"toString": 1}},
                },
            },
            "b",
        ),
        ({}, "constructor"),
        ({}, "b"),
    ],
)
def test_an_imported_file_that_is_damaged_breaks_no_view(
    visit: VisitMaker, server: Server, tmp_path: Path, answer: Mapping[str, object], identity: str
) -> None:
    file = tmp_path / "odd.json"
    file.write_text(conversation(answer, identity))
    page = visit().go(server)
    page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_label("Import").set_input_files(file)
    if identity == "constructor":
        expect(page.get_by_text("odd.json contains no conversations")).to_be_visible()
    else:
        expect(answers(page)).to_contain_text("Answered.")
    page.reload()
    expect(page.get_by_role("button", name="Conversations", exact=True)).to_be_visible()


def test_an_older_export_takes_nothing_away(visit: VisitMaker, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "older.json"
    file.write_text(conversation({}))
    page = visit().go(server)
    for _ in range(2):
        page.get_by_role("button", name="Conversations", exact=True).click()
        page.get_by_label("Import").set_input_files(file)
        expect(page.get_by_text("Conversations imported: 1")).to_be_visible()
        if receipts(page).count() == 0:
            ask(page, "Vem är du?")
            whole(page)
            page.reload()
    expect(page.locator("section.question")).to_contain_text(["Asked?", "Vem är du?"])


def test_what_a_full_storage_does_not_take_is_not_counted(
    visit: VisitMaker, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "long.json"
    file.write_text(conversation({"text": "x" * 6_000_000}))
    page = visit().go(server)
    page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_label("Import").set_input_files(file)
    expect(page.get_by_role("alert")).to_contain_text("The browser's storage is full")
    expect(page.get_by_text("Conversations imported: 0")).to_be_visible()
