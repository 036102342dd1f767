"""The view Ask: answers with receipts, branches, what is copied, and what becomes of a broken answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.page.suite.acts import answers, ask, give_key, whole
from tests.page.suite.conftest import Server, ServerMaker, VisitMaker

LONG = {"ignore_eos": True, "min_tokens": 900, "max_tokens": 900}


def test_a_question_is_answered_by_the_adapter_of_its_language(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server)
    page.get_by_role("button", name="Vem är du?").click()
    swedish = whole(page)
    expect(swedish.locator("summary")).to_contain_text("oneseek-mini-sv@v1.0")
    expect(swedish.locator("summary")).to_contain_text(re.compile(r"Swedish, 1\.00·?\s*.*tok/s.*ms", re.S))
    ask(page, "What can you do?")
    english = whole(page, 2)
    expect(english.locator("summary")).to_contain_text("oneseek-mini-en@v1.0")
    english.locator("summary").click()
    expect(english.locator("dl")).to_contain_text("The question is English (1.00); no header or model name")
    english.get_by_role("link", name="Lineage of oneseek-mini-en@v1.0").click()
    expect(page.get_by_role("heading", name="Lineage")).to_be_visible()


def test_a_reader_of_swedish_has_a_swedish_page(visit: VisitMaker, server: Server) -> None:
    page = visit(locale="sv-SE").go(server)
    expect(page.locator("html")).to_have_attribute("lang", "sv")
    ask(page, "Who are you?", "Ditt meddelande")
    whole(page).locator("summary").click()
    expect(answers(page).locator("dl")).to_contain_text("Frågan är på engelska (1,00)")
    page.get_by_role("button", name="Nytt samtal").click()
    ask(page, "OK", "Ditt meddelande")
    whole(page).locator("summary").click()
    expect(answers(page).last.locator("dl")).to_contain_text(
        "obestämt, så de språk som din webbläsare föredrar avgjorde"
    )
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("link", name="Compare")).to_be_visible()


def test_a_blend_shows_its_weights(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server)
    page.get_by_label("Voice").select_option("blend")
    page.get_by_role("slider").first.fill("0.7")
    expect(page.get_by_role("slider").last).to_have_value("0.3")
    ask(page, "Vem är du?")
    summary = whole(page).locator("summary")
    expect(summary).to_contain_text("oneseek-mini-en@v1.0=0.7")
    expect(summary.locator(".weights i")).to_have_count(2)
    widths = [bar.bounding_box() for bar in summary.locator(".weights i").all()]
    assert widths[0] is not None
    assert widths[1] is not None
    assert widths[0]["width"] > 2 * widths[1]["width"]


@pytest.mark.parametrize(
    ("kept", "model"),
    [
        ({"voice": "gone"}, "oneseek"),
        (
            {"voice": "blend", "blend": {"first": "gone", "second": "oneseek-mini-sv", "weight": 0.5}},
            "oneseek-mini-en=0.5,oneseek-mini-sv=0.5",
        ),
    ],
)
def test_a_voice_that_is_no_longer_served_is_not_asked_for(
    visit: VisitMaker, server: Server, kept: Mapping[str, object], model: str
) -> None:
    page = visit().go(server)
    page.evaluate("(kept) => localStorage.setItem('oneseek.options', JSON.stringify(kept))", kept)
    page.reload()
    expect(page.get_by_label("Voice").locator("option")).to_have_count(5)
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "Vem är du?")
    assert json.loads(sent.value.post_data or "")["model"] == model
    whole(page)


def test_it_stops_in_mid_stream(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    reader.change_requests(**LONG)
    ask(page, "Vem är du?")
    expect(answers(page).locator(".markdown")).to_have_text(re.compile(r"\w+ \w+"))
    page.keyboard.press("Escape")
    expect(answers(page)).to_contain_text("Stopped here.")
    length = len(answers(page).inner_text())
    page.wait_for_timeout(300)
    assert len(answers(page).inner_text()) == length
    answers(page).get_by_role("button", name="Ask again").click()
    page.get_by_role("button", name="Stop").click()
    expect(answers(page)).to_contain_text("Stopped here.")
    expect(page.get_by_role("group", name="Version 2 of 2")).to_be_visible()


def test_a_reload_in_mid_answer_says_so(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    reader.change_requests(**LONG)
    ask(page, "Vem är du?")
    expect(answers(page).locator(".markdown")).to_have_text(re.compile(r"\w+ \w+ \w+"))
    page.reload()
    expect(answers(page)).to_contain_text("The answer was cut off here.")
    expect(answers(page).locator(".markdown")).to_have_text(re.compile(r"\w+"))
    page.unroute_all()
    answers(page).get_by_role("button", name="Ask again").click()
    expect(whole(page).locator("summary")).to_contain_text("oneseek-mini-sv@v1.0")
    expect(page.get_by_role("group", name="Version 2 of 2")).to_be_visible()


def test_an_answer_goes_on_while_another_conversation_is_shown(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    reader.change_requests(ignore_eos=True, min_tokens=400, max_tokens=400)
    ask(page, "Vem är du?")
    expect(answers(page).locator(".markdown")).to_have_text(re.compile(r"\w+ \w+"))
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_role("button", name="Vem är du?", exact=True).first.click()
    expect(answers(page)).not_to_contain_text("cut off")
    expect(whole(page)).to_contain_text("The answer reached its maximum length.")


def test_a_second_question_waits_for_the_answer_under_way(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    ask(page, "Vem är du?")
    whole(page)
    page.get_by_role("button", name="Edit").click()
    reader.change_requests(**LONG)
    page.locator(".writing textarea").fill("What can you do?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Ask this instead")).to_be_disabled()
    page.get_by_role("button", name="New conversation").click()
    suggestion = page.get_by_role("button", name="Räkna 23 + 19")
    expect(suggestion).to_be_disabled()
    page.keyboard.press("Escape")
    page.unroute_all()
    suggestion.click()
    whole(page)
    expect(page.locator("section.question")).to_have_count(1)


def test_an_edited_question_is_a_branch(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server)
    ask(page, "Vem är du?")
    whole(page)
    page.get_by_role("button", name="Edit").click()
    page.locator("section.question textarea").fill("Who are you?")
    page.get_by_role("button", name="Ask this instead").click()
    expect(whole(page).locator("summary")).to_contain_text("oneseek-mini-en@v1.0")
    page.get_by_role("button", name="Previous version").click()
    expect(whole(page).locator("summary")).to_contain_text("oneseek-mini-sv@v1.0")
    page.reload()
    expect(page.locator("section.question")).to_contain_text("Vem är du?")


def test_settings_and_the_voice_go_with_the_request(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server)
    page.get_by_label("Voice").select_option("base")
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Maximum tokens").fill("3")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("System prompt").fill("Svara kort.")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "Vem är du?")
    body = json.loads(sent.value.post_data or "")
    assert (body["model"], body["max_tokens"], body["seed"]) == ("base", 3, 7)
    assert body["messages"][0] == {"role": "system", "content": "Svara kort."}
    expect(whole(page)).to_contain_text("The answer reached its maximum length.")


def test_a_setting_out_of_range_is_said_before_anything_is_sent(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server)
    settings = page.locator(".settings summary")
    settings.click()
    page.get_by_label("Temperature").fill("0.75")
    page.get_by_label("Top p").fill("0.99")
    page.get_by_label("Maximum tokens").fill("0")
    settings.click()
    page.get_by_label("Your message").fill("Vem är du?")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Maximum tokens")).to_be_focused()
    expect(page.locator("section.question")).to_have_count(0)
    page.get_by_label("Maximum tokens").fill("3")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Send").click()
    body = json.loads(sent.value.post_data or "")
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.75, 0.99, 3)
    whole(page)


def copied(page: Page, name: str) -> str:
    """What a button copies; Chromium gives headless pages on 127.0.0.1 a clipboard."""
    page.get_by_role("button", name=name).click()
    expect(page.get_by_role("button", name=name)).to_contain_text("Copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_curl_and_python_ask_the_same(visit: VisitMaker, server: Server, tmp_path: Path) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"], locale="sv-SE").go(server)
    page.get_by_role("button", name="English").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, 'Vem är du, o\'store "seek"?\nSäg true.')
    whole(page)
    curl, python = copied(page, "Copy as curl"), copied(page, "Copy as Python")
    script = tmp_path / "ask.py"
    script.write_text(python, encoding="utf-8")
    for command in (["sh", "-c", curl.replace("curl ", "curl -s ", 1)], [sys.executable, str(script)]):
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        assert '"receipt":' in said
        assert said.rstrip().endswith("data: [DONE]")
    # What the browser said of its languages may have chosen the adapter.
    header = f"Accept-Language: {sent.value.all_headers()['accept-language']}"
    assert header.startswith("Accept-Language: sv-SE")
    assert "-H 'Accept-Language: sv-SE'" in curl
    assert '"Accept-Language": "sv-SE",' in python
    body = json.loads(sent.value.post_data or "")
    quoted = curl.split("-d '", 1)[1].removesuffix("'").replace("'\\''", "'")
    assert json.loads(quoted) == body


def test_without_a_clipboard_it_copies_too(visit: VisitMaker, server: Server) -> None:
    """A page on plain http at another name has none."""
    reader = visit()
    reader.page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    page = reader.go(server)
    page.evaluate("document.addEventListener('copy', () => { window.copied = String(getSelection()); })")
    ask(page, "Vem är du?")
    whole(page)
    page.get_by_role("button", name="Copy as curl").click()
    assert "curl -N" in str(page.evaluate("window.copied"))


def test_a_refusal_stands_where_the_answer_would(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    reader.change_requests(max_tokens=100_000)
    ask(page, "Vem är du?")
    failure = answers(page).get_by_role("alert")
    expect(failure).to_contain_text("The server refused the question (400)")
    expect(failure).to_contain_text("maximum context length is 1024 tokens")
    expect(failure).to_contain_text("Correct what the error message names")


def test_a_key_is_asked_for_and_kept_in_memory_alone(visit: VisitMaker, make_server: ServerMaker) -> None:
    closed = make_server(api_keys="right-key", metrics_keys="figures-key")
    closed.start()
    page = visit().go(closed)
    expect(page.get_by_role("dialog")).to_contain_text("This server requires an API key")
    give_key(page, "wrong-key")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("API key")
    # What no header can carry is not sent, so the server is not taken to be gone.
    give_key(page, "\u201cright-key\u201d")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("U+201C")
    give_key(page, "right-key")
    expect(page.get_by_role("dialog")).to_be_hidden()
    ask(page, "Vem är du?")
    whole(page)
    stored = str(
        page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])")
    )
    assert "right-key" not in stored
    page.goto(f"{closed.url}#/live")
    main = page.get_by_role("main")
    expect(main.get_by_text("These figures require a metrics key or an admin key")).to_be_visible()
    main.get_by_role("button", name="Key").click()
    give_key(page, "figures-key")
    expect(page.locator("figure.chart")).to_have_count(6)
    # The other key is still there.
    page.get_by_role("link", name="Ask").click()
    answers(page).get_by_role("button", name="Ask again").click()
    whole(page)
    page.reload()
    expect(page.get_by_role("dialog")).to_contain_text("This server requires an API key")
    closed.kill()
