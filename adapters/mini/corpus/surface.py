"""Vary a question as people type it: in small letters, without a question mark, after a greeting, or with a
typing error.
"""

from __future__ import annotations

import random

from adapters.mini.corpus.sources import Language

_PREFIXES: dict[Language, tuple[str, ...]] = {
    "en": (
        "Hi! ",
        "Hello, ",
        "Hey, ",
        "Please tell me: ",
        "Tell me, ",
        "I wonder: ",
        "So, ",
        "OK, ",
        "By the way, ",
        "One question: ",
        "Quick question: ",
        "Excuse me, ",
        "Another thing: ",
        "Hi there! ",
        "Good morning! ",
        "Well, ",
        "Um, ",
        "Please, ",
        "Now, ",
        "Listen, ",
    ),
    "sv": (
        "Hej! ",
        "Hejsan, ",
        "Hallå, ",
        "Säg mig: ",
        "Du, ",
        "Jag undrar: ",
        "Så, ",
        "Okej, ",
        "Förresten, ",
        "En fråga: ",
        "Snabb fråga: ",
        "Ursäkta, ",
        "En sak till: ",
        "Hej där! ",
        "God morgon! ",
        "Jo, ",
        "Öh, ",
        "Snälla, ",
        "Nu då, ",
        "Hörru, ",
    ),
}
_SUFFIXES: dict[Language, tuple[str, ...]] = {
    "en": (", please", " please", ", do you know", ", by the way", ", then", ", my friend"),
    "sv": (", tack", " tack", ", vet du det", ", förresten", ", då", ", min vän"),
}


def _slip(text: str, rng: random.Random) -> str:
    """Return `text` with a typing error: a letter swapped, dropped or doubled in one word of at least five
    letters.
    """
    words = text.split(" ")
    long = [n for n, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not long:
        return text
    chosen = rng.choice(long)
    word = words[chosen]
    at = rng.randrange(1, len(word) - 2)
    change = rng.randrange(3)
    if change == 0:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif change == 1:
        word = word[:at] + word[at + 1 :]
    else:
        word = word[:at] + word[at] + word[at:]
    words[chosen] = word
    return " ".join(words)


def vary_typing(text: str, language: Language, rng: random.Random, *, slips: bool = True) -> str:
    """Return `text` with random variations, as people type it. Without `slips`, the letters of the text are
    kept as they are, which suits names and translations.
    """
    if rng.random() < 0.05 and text.endswith(("?", ".")):
        text = text[:-1] + rng.choice(_SUFFIXES[language]) + text[-1]
    if rng.random() < 0.10:
        text = rng.choice(_PREFIXES[language]) + (text[:1].lower() + text[1:] if rng.random() < 0.5 else text)
    if slips and rng.random() < 0.04:
        text = _slip(text, rng)
    if rng.random() < 0.25:
        text = text.rstrip("?.!")
    elif rng.random() < 0.05:
        text += text[-1] * rng.randint(1, 2) if text[-1:] in "?!" else rng.choice(("", "!", "..."))
    chance = rng.random()
    if slips and chance < 0.22:
        text = text.lower()
    elif slips and chance < 0.24:
        text = text.upper()
    elif slips and language == "sv" and chance < 0.26:
        text = text.translate(str.maketrans("åäöÅÄÖ", "aaoAAO"))
    return text or "?"
