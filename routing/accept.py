"""Parses the languages of an Accept-Language header (RFC 9110, section 12.5.4), best first."""

from __future__ import annotations

import re

from routing.settings import detection_code

_LONGEST, _MOST = 256, 16
_RANGE = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,8})\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?")


def preferred_languages(header: str | None) -> tuple[str, ...]:
    """Return language codes in order of preference, without malformed and refused (q=0) entries."""
    return tuple(language_qualities(header))


def language_qualities(header: str | None) -> dict[str, float]:
    """Return the q value of each language code in the header, above 0 and at most 1, in order
    of preference.
    """
    if not header:
        return {}
    found: list[tuple[float, str]] = []
    for part in header[:_LONGEST].split(",")[:_MOST]:
        match = _RANGE.fullmatch(part)
        if match is not None and (quality := min(float(match[2] or 1), 1.0)) > 0:
            found.append((-quality, detection_code(match[1])))
    best: dict[str, float] = {}
    for negative, code in sorted(found, key=lambda item: item[0]):
        best.setdefault(code, -negative)
    return best
