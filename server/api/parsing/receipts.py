"""Parses the header that requests the receipt (which adapter answered, and why) in the answer's body."""

from __future__ import annotations

from server.api.fields.decode import format_json
from server.errors import bad_field
from server.exchange import Exchange

RECEIPT_HEADER = "X-OneSeek-Receipt"
IN_BODY = "body"


def asks_receipt(exchange: Exchange) -> bool:
    """Return True if the header `X-OneSeek-Receipt` requests the receipt in the answer's body. Raises
    `ApiError` (400) for an unknown value.
    """
    value = exchange.headers.get(RECEIPT_HEADER.lower().encode())
    if value is None:
        return False
    if value.strip().lower() == IN_BODY:
        return True
    raise bad_field(
        RECEIPT_HEADER,
        f"the header {RECEIPT_HEADER} has the unknown value {format_json(value)}; send {IN_BODY!r} to get "
        "the receipt (which adapter answered, and why) in the answer's body, or leave the header out.",
        code="invalid_value",
    )
