"""Detect whether an answer is in English or in Swedish, by function words that only one of the languages has.

The detector is independent of the one in the server, so that an error there is not hidden here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ENGLISH = """
the an is was were been being am i'm you your yours we our they their he she his her it its my me this that
these those of and or to with from by not don't doesn't can't does did have has had what who why how when
where which there here but because than then into very more would could should will no yes please one
yourself are
"""
SWEDISH = """
en ett är var blir blev du din ditt dina vi vår vårt oss de dem deras han hon hans hennes det jag mig min
mitt mina detta dessa som av och eller att på till från inte kan ska skulle vill har hade vad vem varför hur
när där här men eftersom än så om också mycket mer för nej ja
"""
FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    "en": frozenset(ENGLISH.split()),
    "sv": frozenset(SWEDISH.split()),
}
"""Maps `en` and `sv` to common words of English and of Swedish that the other language does not have."""
LETTERS = frozenset("åäö")
"""Letters that Swedish has and English has not. A word with such a letter counts as Swedish."""


def language_of(text: str) -> str:
    """Return the code of the language that has more words in `text`. Empty if both have equally many."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.casefold().replace("\u2019", "'"))
    counts = {code: sum(word in held for word in words) for code, held in FUNCTION_WORDS.items()}
    counts["sv"] += sum(not LETTERS.isdisjoint(word) for word in words)
    most = max(counts.values())
    found = [code for code, count in counts.items() if count == most]
    return found[0] if len(found) == 1 else ""
