"""Explains a route in lines for people, as `oneseek route TEXT` prints them."""

from __future__ import annotations

from routing.route import Reason, Route

_BECAUSE = {
    Reason.HEADER: "the X-OneSeek-Adapter header asks for it",
    Reason.MODEL: "the model field asks for it",
    Reason.CONVERSATION: "the earlier turns settled the language; the question alone does not tell",
    Reason.LANGUAGE: "the question is written in this language",
    Reason.TOPIC: "the question is like the examples of this adapter",
    Reason.SYSTEM: "the question does not tell; the system prompt asks for it",
    Reason.ACCEPT_LANGUAGE: "the question does not tell; Accept-Language prefers it",
    Reason.DEFAULT: "the question does not tell; this is the configured default",
    Reason.UNDECIDED: "the language is not certain; the policy for undecided questions sends it here",
    Reason.NO_ADAPTER: "no adapter speaks this language; the policy for such questions sends it here",
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
