"""A route told in lines that people read, as `oneseek route TEXT` prints them."""

from __future__ import annotations

from routing.route import Reason, Route

_BECAUSE = {
    Reason.HEADER: "the X-OneSeek-Adapter header asks for it",
    Reason.MODEL: "the model field asks for it",
    Reason.CONVERSATION: "the earlier turns settled the language; the question alone does not tell",
    Reason.LANGUAGE: "the question is written in this language",
    Reason.ACCEPT_LANGUAGE: "the question does not tell; Accept-Language prefers it",
    Reason.DEFAULT: "the question does not tell; this is the configured default",
    Reason.UNDECIDED: "the language is not certain; the policy for undecided questions sends it here",
    Reason.NO_ADAPTER: "no adapter speaks this language; the policy for such questions sends it here",
}


def explain(route: Route, top: int = 3) -> list[str]:
    """Lines for target, reason, language, the `top` likeliest languages, and what the text told."""
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
    return [*lines, *(f"evidence  {part}" for part in seen.evidence.split("; "))]


def _named(language: str | None) -> str:
    if language is None:
        return "undecided"
    return "xx (something else)" if language == "xx" else language
