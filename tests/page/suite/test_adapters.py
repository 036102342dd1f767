"""The view Adapters: versions, lineage, and changes that are confirmed in place."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from tests.page.suite.acts import give_key
from tests.page.suite.conftest import Server, VisitMaker


def test_the_lineage_leads_from_the_data_to_the_signature(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server, "adapters/sv")
    graph = page.get_by_role("group", name="Lineage of oneseek-mini-sv@v1.0")
    for part in ("oneseek_identity_v1.jsonl", "oneseek-mini", "oneseek-mini-sv@v1.0", "signed", "entry 1"):
        expect(graph).to_contain_text(part)
    expect(page.get_by_text("From the ledger")).to_be_visible()
    page.get_by_role("link", name="oneseek-mini-en").click()
    expect(page.get_by_text("The ledger has no entry about this version.")).to_be_visible()
    expect(page.get_by_role("group", name="Lineage of oneseek-mini-en@v1.0")).to_contain_text("not signed")


def test_a_canary_starts_and_ends_and_a_version_is_promoted(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server, "adapters/sv")
    page.get_by_role("button", name="Start a canary").click()
    page.get_by_label("Percentage of requests").fill("25")
    expect(page.get_by_text("25% of the requests for oneseek-mini-sv go to v1.1")).to_be_visible()
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("dialog")).to_contain_text("This action requires an admin key")
    give_key(page, "not-it")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("admin key")
    give_key(page, "root")
    page.get_by_role("button", name="Confirm").click()
    row = page.get_by_role("row", name="oneseek-mini-sv").first
    expect(row).to_contain_text("25% of requests")
    page.get_by_role("button", name="End the canary").click()
    page.get_by_role("button", name="Confirm").click()
    expect(row).not_to_contain_text("25%")
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_text("v1.1 becomes the active version of oneseek-mini-sv (now v1.0).")).to_be_visible()
    page.get_by_role("button", name="Confirm").click()
    expect(row.locator("code")).to_have_text("v1.1")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("button", name="Confirm").click()
    expect(row.locator("code")).to_have_text("v1.0")


def test_a_change_that_is_confirmed_twice_is_made_once(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server, "adapters/sv")
    page.get_by_role("button", name="Key").click()
    give_key(page, "root")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/admin/" in request.url else None)
    page.get_by_role("button", name="Start a canary").click()
    share = page.get_by_label("Percentage of requests")
    share.press("ControlOrMeta+a")
    share.press("Backspace")
    share.press("5")
    expect(page.get_by_text("5% of the requests for oneseek-mini-sv go to v1.1")).to_be_visible()
    page.get_by_role("button", name="Confirm").dblclick()
    row = page.get_by_role("row", name="oneseek-mini-sv").first
    expect(row).to_contain_text("5% of requests")
    page.get_by_role("button", name="End the canary").click()
    page.get_by_role("button", name="Confirm").click()
    expect(row).not_to_contain_text("of requests")
    assert [url.rsplit("/", 1)[1] for url in asked] == ["canary", "settle"]


def test_requests_of_the_last_minutes_are_counted(visit: VisitMaker, server: Server) -> None:
    page = visit().go(server)
    page.get_by_role("button", name="What can you do?").click()
    page.get_by_role("link", name="Adapters").click()
    cell = page.get_by_role("row", name="oneseek-mini-en").locator("td.count")
    expect(cell).not_to_have_text("0", timeout=15_000)


def test_a_link_leads_to_its_adapter_among_many(visit: VisitMaker, server: Server) -> None:
    def many(route: Route) -> None:
        told = route.fetch().json()
        first = told["data"][0]
        more = [{**first, "alias": f"a{number:03}", "language": "fi"} for number in range(200)]
        route.fulfill(json={**told, "data": [*more, *told["data"]]})

    page = visit().page
    page.route("**/v1/adapters", many)
    page.goto(f"{server.url}#/adapters/oneseek-mini-sv@v1.0")
    expect(page.get_by_role("group", name="Lineage of oneseek-mini-sv@v1.0")).to_be_attached()
    expect(page.get_by_role("link", name="oneseek-mini-sv", exact=True)).to_be_in_viewport()
