"""Find the language that a system prompt asks for: the language that it names, or else the language that it
is written in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routing.detect import Detector

MOST = 2_400
"""Maximum characters of a system prompt that are read, half from its beginning and half from its end."""

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        name: code
        for code, names in {
            "sv": "swedish svenska svensk schwedisch ruotsiksi",
            "en": "english engelska engelsk englisch englanniksi",
            "da": "danish danska dansk dänisch",
            "no": "norwegian norska norsk nynorsk bokmål norwegisch",
            "de": "german tyska tysk deutsch saksaksi",
            "fi": "finnish finska finsk finnisch suomeksi",
            "nl": "dutch nederländska nederlandsk nederlands holländska",
            "fr": "french franska fransk französisch français",
            "es": "spanish spanska spansk spanisch español",
            "it": "italian italienska italiensk italienisch italiano",
            "pt": "portuguese portugisiska portugisisk português",
            "pl": "polish polska polsk polnisch",
            "is": "icelandic isländska islandsk isländisch íslensku",
        }.items()
        for name in names.split()
    }
)
_ASKED = re.compile(
    r"(?P<never>\b(?:not|never|n't|inte|aldrig|ikke|nicht)\b[^.!?\n]{0,30})?"
    r"\b(?:(?:in|på|auf|i|use|speak|en|em)\s+(?P<name>\w+)|(?P<alone>ruotsiksi|englanniksi|suomeksi))\b",
    re.IGNORECASE,
)


def bounded(system: str) -> str:
    """Return the part of a system prompt that is read: all of a prompt of up to 2,400 characters (`MOST`),
    only the beginning and the end of a longer one.
    """
    return system if len(system) <= MOST else f"{system[: MOST // 2]}\n{system[-MOST // 2 :]}"


def answer_language(system: str, detector: Detector) -> str | None:
    """Return the code of the language that a system prompt asks for. None if the prompt names several
    languages, or names none and is itself in an undecided language.
    """
    text = bounded(system)
    named = {
        code
        for match in _ASKED.finditer(text)
        if not match["never"] and (code := _NAMES.get((match["name"] or match["alone"]).lower()))
    }
    if named:
        return next(iter(named)) if len(named) == 1 else None
    return detector.detect((text,)).language
