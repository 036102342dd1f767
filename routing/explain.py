"""Explains a route in lines for people, as `oneseek route TEXT` prints them."""

from __future__ import annotations

from routing.route import Reason, Route

_BECAUSE = {
    Reason.HEADER: "the header X-OneSeek-Adapter names this adapter",
    Reason.MODEL: "the field model names this adapter",
    Reason.CONVERSATION: "the language of the earlier messages is clear; that of the question alone is not",
    Reason.LANGUAGE: "the question is written in this language",
    Reason.TOPIC: "the question resembles the example questions of this adapter",
    Reason.SYSTEM: "the question's language is not clear; the system prompt asks for this language",
    Reason.ACCEPT_LANGUAGE: "the question's language is not clear; Accept-Language prefers this language",
    Reason.DEFAULT: "the question's language is not clear; this is the configured default",
    Reason.UNDECIDED: "the question's language is not clear; routing.undecided chooses this target",
    Reason.NO_ADAPTER: "no adapter has the question's language; routing.unsupported chooses this target",
}


def explain(route: Route, top: int = 3) -> list[str]:
    """Return lines that show the target, the reason, the language, the `top` likeliest languages, and the
    evidence.
    """
    target = " + ".join(name if weight == 1.0 else f"{weight:g} × {name}" for name, weight in route.target)
    lines = [
        f"adapter   {target or 'none, the base alone'}",
        f"reason    {route.reason}: {_BECAUSE[route.reason]}",
    ]
    seen = route.detection
    if seen is None:
        return lines
    likely = ", ".join(f"{name} {score:.1%}" for name, score in list(seen.scores.items())[:top])
    lines.append(f"language  {_named(route.language)}")
    lines.append(f"likely    {likely}")
    if route.topic is not None:
        about = ", ".join(f"{name} {score:.1%}" for name, score in list(route.topic.scores.items())[:top])
        lines.append(f"topics    {about}")
    return [*lines, *(f"evidence  {part}" for part in seen.evidence.split("; "))]


def _named(language: str | None) -> str:
    if language is None:
        return "undecided"
    return "xx (something else)" if language == "xx" else language
