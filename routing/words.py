"""What a speaker knows of each language that letter statistics do not: its common words and its greetings.

The lists in `wordlists/` are written by hand. A word stands in the list of every language that uses it; the
evidence that it gives is then only against the others. Swedish, Danish and Norwegian have the longest ones:
they share most of their letter sequences, so that a short text is told apart by such words alone. Nynorsk
stands in `no.txt`. Icelandic has a list, though langdetect has no profile of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType


def known_words() -> dict[str, frozenset[str]]:
    """Language → its common words, lower-case, read from `wordlists/`."""
    folder = files("routing").joinpath("wordlists")
    return {
        entry.name.removesuffix(".txt"): _read(entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
    }


def _read(text: str) -> frozenset[str]:
    return frozenset(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


PHRASES: Mapping[str, str] = MappingProxyType(
    {
        phrase: language
        for language, phrases in {
            "sv": "hej|hejsan|hej hej|hejhej|hallå|hallå där|tjena|tjenare|tjo|tja|god morgon|god kväll|"
            "god natt|god dag|goddag|tack|tack tack|tack så mycket|tusen tack|tackar|tack för hjälpen|"
            "hej då|hejdå|vi ses|snälla|ja tack|nej tack|jaha|okej|varsågod|förlåt|ursäkta|vad|hur då|"
            "varför|vem|när",
            "en": "hi|hello|hey|hi there|hello there|hey there|good morning|good evening|good night|"
            "good afternoon|thanks|thank you|thank you very much|thanks a lot|thx|bye|goodbye|see you|yes|"
            "yes please|no thanks|okay|please|sorry|what|why|who|when|how|cool|nice|great|sure",
            "da": "tak|mange tak|tusind tak|tak for hjælpen|godmorgen|godaften|farvel|undskyld|hvad|hvorfor",
            "no": "hei|hei hei|takk|tusen takk|mange takk|god kveld|ha det|unnskyld|hva|hvorfor",
            "de": "hallo|guten tag|guten morgen|guten abend|danke|vielen dank|danke schön|tschüss|bitte",
            "fi": "moi|moikka|terve|kiitos|hyvää huomenta|hyvää päivää|hyvää iltaa|anteeksi",
            "nl": "hoi|dag|goedemorgen|goedenavond|bedankt|dank je|dank je wel|dank u|alsjeblieft",
            "es": "hola|gracias|muchas gracias|buenos días",
            "fr": "bonjour|salut|merci|bonsoir",
            "it": "ciao|grazie|buongiorno",
            "pt": "olá|obrigado|obrigada|bom dia",
            "pl": "cześć|dziękuję|dzień dobry",
            "tr": "merhaba|teşekkürler|selam",
            "is": "halló|góðan daginn|takk fyrir",
            "cs": "ahoj|děkuji",
            "hu": "szia|köszönöm",
        }.items()
        for phrase in phrases.split("|")
    }
)
"""A whole message → the language it is taken for; "hej" is Danish too, and taken for Swedish."""
