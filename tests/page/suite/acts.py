"""What a reader does on the page, by what a screen reader would call things."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

MESSAGE = "Your message"


def ask(page: Page, text: str, label: str = MESSAGE) -> None:
    """Write a question and send it with Enter."""
    page.get_by_label(label, exact=True).fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator("section.answer")


def receipts(page: Page) -> Locator:
    return page.locator("section.answer details.receipt")


def whole(page: Page, count: int = 1) -> Locator:
    """The last of `count` answers, once it has its receipt."""
    expect(receipts(page)).to_have_count(count)
    return answers(page).last


def give_key(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("API key").fill(key)
    dialog.get_by_role("button", name="Use the key").click()
