"""The languages of an Accept-Language header (RFC 9110, section 12.5.4), best first."""

from __future__ import annotations

import re

from routing.settings import detection_code

_LONGEST, _MOST = 256, 16
_RANGE = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,8})\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?")


def preferred_languages(header: str | None) -> tuple[str, ...]:
    """Codes as detection uses them, by falling quality; what is malformed or refused (q=0) is left out."""
    if not header:
        return ()
    found: list[tuple[float, str]] = []
    for part in header[:_LONGEST].split(",")[:_MOST]:
        match = _RANGE.fullmatch(part)
        if match is not None and (quality := float(match[2] or 1)) > 0:
            found.append((-quality, detection_code(match[1])))
    return tuple(dict.fromkeys(code for _, code in sorted(found, key=lambda item: item[0])))
