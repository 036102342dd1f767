"""Explains a route in lines for people, as `oneseek route TEXT` prints them."""

from __future__ import annotations

from routing.route import Reason, Route

_BECAUSE = {
    Reason.HEADER: "the header X-OneSeek-Adapter names it",
    Reason.MODEL: "the request's model names it",
    Reason.CONVERSATION: "the question's language is undecided; earlier turns of the conversation decided it",
    Reason.LANGUAGE: "the question is written in this language",
    Reason.TOPIC: "the question is similar to this adapter's example questions",
    Reason.SYSTEM: "the question's language is undecided; the system prompt decided",
    Reason.ACCEPT_LANGUAGE: "the question's language is undecided; the header Accept-Language decided",
    Reason.DEFAULT: "the question's language is undecided; the setting routing.default decided",
    Reason.UNDECIDED: "the question's language is undecided; the setting routing.undecided decided",
    Reason.NO_ADAPTER: "no adapter is for this language; the setting routing.unsupported decided",
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
    return "xx (a language without an adapter)" if language == "xx" else language
