"""How the page shows what a model wrote, however it is written."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.page.suite.acts import answers, ask, whole
from tests.page.suite.conftest import Server, VisitMaker

HOSTILE = (
    "<script>window.ran = 1</script>\n\n<img src=x onerror='window.ran = 1'>\n\n"
    "[go](javascript:window.ran=1) [ok](https://example.com/) ![pixel](https://example.com/spy.png)"
)


def test_markup_in_an_answer_does_not_run(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    reader.change_requests(guided_choice=[HOSTILE])
    ask(page, "Vem är du?")
    answer = whole(page).locator(".markdown")
    expect(answer).to_contain_text("<script>window.ran = 1</script>")
    expect(answer).to_contain_text("pixel")
    assert page.evaluate("window.ran") is None
    assert answer.locator("script, img, [onerror]").count() == 0
    links = [link.get_attribute("href") for link in answer.locator("a").all()]
    assert [link for link in links if link] == ["https://example.com/"]
    assert answer.locator("a[href]").get_attribute("rel") == "noopener noreferrer nofollow"


def test_tables_lists_and_other_directions_are_as_written(visit: VisitMaker, server: Server) -> None:
    reader = visit()
    page = reader.go(server)
    written = "| a | b |\n|---|--:|\n| 1 | 2 |\n\n7. seven\n\n- [x] done\n- [ ] open\n\nמה שלומך?\n\n- אחת"
    reader.change_requests(guided_choice=[written])
    ask(page, "Vem är du?")
    answer = whole(page).locator(".markdown")
    assert answer.locator("td").last.evaluate("(cell) => getComputedStyle(cell).textAlign") in (
        "right",
        "-webkit-right",
    )
    expect(answer.locator("ol")).to_have_attribute("start", "7")
    expect(answer.locator("li")).to_have_text(["seven", "☑ done", "☐ open", "אחת"])
    for block in ("p", "ul"):
        last = answer.locator(f":scope > {block}").last
        assert last.evaluate("(block) => getComputedStyle(block).direction") == "rtl"


@pytest.mark.parametrize(
    "written",
    [">" * 5000 + "x", "- " * 3000 + "x", "a." * 5000 + "@", "> " * 900 + "x", "x " * 100 + "y" * 5000],
)
def test_an_answer_that_is_hard_to_read_is_shown_all_the_same(
    visit: VisitMaker, server: Server, written: str
) -> None:
    page = visit().go(server)
    chunk = json.dumps({"choices": [{"delta": {"content": written}}]})
    page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(body=f"data: {chunk}\n\ndata: [DONE]\n\n")
    )
    ask(page, "Vem är du?")
    expect(answers(page).locator(".markdown")).to_contain_text(written[-1])
    expect(answers(page).get_by_role("button", name="Ask again")).to_be_enabled()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_slow_drawing_leaves_time_for_the_reader(visit: VisitMaker, server: Server) -> None:
    """A long answer is drawn as a whole each time, so it is drawn less often; the last piece is drawn too."""
    page = visit().go(server)
    drawn = page.evaluate(
        """async () => {
        const { paced } = await import("/page/app/pace.js");
        let [asked, drawn, busy] = [0, [], 0];
        const draw = paced(() => {
            const began = performance.now();
            while (performance.now() - began < 60);
            busy += performance.now() - began;
            drawn.push(asked);
        });
        const began = performance.now();
        while (performance.now() - began < 1500) {
            asked += 1;
            draw();
            await new Promise((go) => setTimeout(go, 5));
        }
        const share = busy / (performance.now() - began);
        await new Promise((go) => setTimeout(go, 500));
        return { asked, last: drawn.at(-1), drawn: drawn.length, share };
        }"""
    )
    assert drawn["last"] == drawn["asked"]
    assert drawn["drawn"] > 2
    assert drawn["share"] < 0.6
