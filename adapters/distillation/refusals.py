"""Patterns that find answers to drop: refusals in Swedish and English, and answers that claim to be another
model.

Only the beginning of an answer is searched for a refusal. A model that declines does so at once; the same
words later mostly mean something else ("I cannot stress enough…"). docs/distillation.md lists the patterns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

BEGINNING = 200
"""Number of characters at the beginning of an answer that are searched for a refusal."""

_SV = (
    r"(?:jag|vi) (?:kan|får|vill|tänker) (?:\w+ )?inte (?:\w+ ){0,2}?"
    r"(?:hjälpa|svara|besvara|bistå|ge dig|ge råd|uppfylla|utföra|skriva|skapa|diskutera|kommentera)\b",
    r"tyvärr (?:kan|får|har) jag (?:\w+ )?(?:inte|ingen)\b",
    r"jag (?:har inte|har ingen|saknar) (?:någon )?(?:möjlighet|förmåga|tillgång) (?:att|till)\b",
    r"jag (?:beklagar|är ledsen|ber om ursäkt)\b",
    r"som (?:en )?(?:ai|ai-\w+|språkmodell|stor språkmodell)\b[^.]{0,40}\binte\b",
    r"det (?:kan|får) jag (?:\w+ )?inte (?:hjälpa|svara|göra|säga|uttala)\b",
    r"jag vet (?:\w+ )?inte\b",
    r"det (?:ligger|är) utanför (?:min|mitt|mina)\b",
)
_EN = (
    r"(?:i'm|i am|we're|we are) (?:very |so |really )?(?:sorry|afraid)\b",
    r"(?:i|we) (?:can't|cannot|can not|won't|will not|am not able to|am unable to) (?:\w+ )?"
    r"(?:help|assist|answer|provide|comply|fulfill?|discuss|comment|do|write|create|engage|support)\b",
    r"i'm (?:not able|unable) to\b",
    r"i (?:must|have to) (?:decline|refuse)\b",
    r"as an? (?:ai|ai \w+|artificial intelligence|(?:large )?language model)\b[^.]{0,60}"
    r"\b(?:can't|cannot|can not|don't|do not|unable|not able)\b",
    r"i (?:don't|do not) know\b",
    r"(?:that's|that is|it's|it is) (?:outside|beyond) my\b",
    r"unfortunately,? i (?:can't|cannot|can not|am not|don't|do not)\b",
)
REFUSALS: Mapping[str, re.Pattern[str]] = {
    "sv": re.compile("|".join(rf"\b{one}" for one in _SV), re.IGNORECASE),
    "en": re.compile("|".join(rf"\b{one}" for one in _EN), re.IGNORECASE),
}

_MODELS = (
    r"chat ?gpt|gpt[- ]?(?:sw3|[345])\w*|claude|gemini|bard|copilot|llama|mistral|mixtral|qwen|deepseek|grok|"
    r"phi-\d|gemma|viking|poro|eurollm|apertus"
)
_MAKERS = r"openai|anthropic|google|meta|microsoft|alibaba|mistral ai|ai sweden|xai"
_MADE = r"trained|developed|created|made|built|tränad|tränats|utvecklad|utvecklats|skapad|skapats|gjord|byggd"
FOREIGN = re.compile(
    rf"\b(?:i am|i'm|my name is|jag är|jag heter|mitt namn är)\b[^.!?\n]{{0,40}}\b(?:{_MODELS})\b"
    rf"|\b(?:i|i'm|jag)\b[^.!?\n]{{0,60}}\b(?:{_MADE}) (?:by|av) (?:{_MAKERS})\b",
    re.IGNORECASE,
)
"""Matches an answer in which the speaker claims to be another model, or to be made by another company."""


def refuses(answer: str) -> bool:
    """True if `answer` begins with a refusal in Swedish or English. Both languages are searched, because
    models also refuse in the other language.
    """
    beginning = answer[:BEGINNING].replace("’", "'")
    return any(pattern.search(beginning) for pattern in REFUSALS.values())


def speaks_as_another(answer: str) -> bool:
    """True if `answer` claims to be another model than OneSeek."""
    return FOREIGN.search(answer.replace("’", "'")) is not None
