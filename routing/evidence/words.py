"""Read common words and greetings of each language from hand-written lists.

The lists are in `wordlists/`. A word is listed for every language that uses it, and is then evidence only
against the other languages. Swedish, Danish and Norwegian have the longest lists: they share most of their
letter sequences, so only such words distinguish them in short texts. `nn` (Nynorsk) counts as `no`
(Norwegian). Icelandic has a list, though langdetect has no profile of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from routing.lists import read_list

_FOLDER = files("routing").joinpath("evidence", "wordlists")
_READ_AS: Mapping[str, str] = MappingProxyType({"nn": "no"})
"""Maps the language of a word list to the language for which its words count: Nynorsk counts as Norwegian."""

NEUTRAL = frozenset(
    (
        *("ok", "k", "kk", "hm", "hmm", "hmmm", "mm", "mmm", "mhm", "ah", "aha", "oh", "eh"),
        *("haha", "hahaha", "hahahaha", "hehe", "hehehe", "heh"),
    )
)
"""Words that are common in chats of every language. A message with only such words gives no evidence of a
language.
"""


def known_words() -> dict[str, frozenset[str]]:
    """Read the common words of each language, in lower case, from `wordlists/`."""
    found: dict[str, frozenset[str]] = {}
    for entry in _FOLDER.iterdir():
        code = entry.name.removesuffix(".txt")
        language = _READ_AS.get(code, code)
        found[language] = found.get(language, frozenset()).union(written_words(code))
    return found


def written_words(code: str) -> tuple[str, ...]:
    """Return the words of the hand-written list of language `code`, in the file's order."""
    return tuple(dict.fromkeys(read_list("evidence", "wordlists", code)))


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
"""Maps each phrase to the language for which it is evidence when it is the whole message. "hej" counts as
Swedish, though it is Danish too.
"""
