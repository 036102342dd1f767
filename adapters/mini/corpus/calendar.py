"""Draw training questions about the days, months and seasons, and their order."""

from __future__ import annotations

import random

from adapters.mini.corpus.sources import Language, pick
from adapters.mini.corpus.talk import QuestionAnswer

DAYS: dict[Language, tuple[str, ...]] = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "sv": ("måndag", "tisdag", "onsdag", "torsdag", "fredag", "lördag", "söndag"),
}
MONTHS: dict[Language, tuple[str, ...]] = {
    "en": (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
    "sv": (
        "januari",
        "februari",
        "mars",
        "april",
        "maj",
        "juni",
        "juli",
        "augusti",
        "september",
        "oktober",
        "november",
        "december",
    ),
}
_SEASONS: dict[Language, tuple[str, ...]] = {
    "en": ("winter", "spring", "summer", "autumn"),
    "sv": ("vintern", "våren", "sommaren", "hösten"),
}
_PLACES: dict[Language, tuple[str, ...]] = {
    "en": (
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
    ),
    "sv": (
        "första",
        "andra",
        "tredje",
        "fjärde",
        "femte",
        "sjätte",
        "sjunde",
        "åttonde",
        "nionde",
        "tionde",
        "elfte",
        "tolfte",
    ),
}


def _neighbour(rng: random.Random, language: Language, names: tuple[str, ...], kind: str) -> QuestionAnswer:
    at = rng.randrange(len(names))
    after = rng.random() < 0.6
    name, result = names[at], names[(at + (1 if after else -1)) % len(names)]
    if language == "en":
        side = "after" if after else "before"
        asked = (
            f"What {kind} comes {side} {name}?",
            f"Which {kind} is {side} {name}?",
            f"What comes {side} {name}?",
            f"What {kind} is it {side} {name}?",
        )
        verb = "comes after" if after else "comes before"
        return QuestionAnswer(language, "calendar", pick(rng, asked), f"{result} {verb} {name}.")
    side = "efter" if after else "före"
    asked = (
        f"Vilken {kind} kommer {side} {name}?",
        f"Vilken {kind} är det {side} {name}?",
        f"Vad kommer {side} {name}?",
    )
    return QuestionAnswer(
        language, "calendar", pick(rng, asked), f"{result.capitalize()} kommer {side} {name}."
    )


def calendar(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question about days, months or seasons, and its answer."""
    english = language == "en"
    way = rng.randrange(6)
    if way < 2:
        return _neighbour(rng, language, DAYS[language], "day" if english else "dag")
    if way == 2:
        return _neighbour(rng, language, MONTHS[language], "month" if english else "månad")
    if way == 3:
        at, later = rng.randrange(7), rng.random() < 0.6
        today, result = DAYS[language][at], DAYS[language][(at + (1 if later else -1)) % 7]
        if english:
            asked = f"If today is {today}, what day is {'tomorrow' if later else 'it yesterday'}?"
            if not later:
                asked = f"If today is {today}, what day was yesterday?"
            return QuestionAnswer(
                language, "calendar", asked, f"Then {'tomorrow is' if later else 'yesterday was'} {result}."
            )
        asked = (
            f"Om det är {today} i dag, vilken dag är det i morgon?"
            if later
            else (f"Om det är {today} i dag, vilken dag var det i går?")
        )
        return QuestionAnswer(
            language,
            "calendar",
            asked,
            f"Då {'är det' if later else 'var det'} {result} i {'morgon' if later else 'går'}.",
        )
    at = rng.randrange(12)
    month = MONTHS[language][at]
    if way == 4:
        season = _SEASONS[language][(at + 1) % 12 // 3]
        if english:
            asked = (
                f"Which season is {month} in?",
                f"What season is it in {month}?",
                f"Is {month} in summer or winter?",
            )
            return QuestionAnswer(
                language, "calendar", pick(rng, asked), f"In Sweden, {month} belongs to {season}."
            )
        asked = (
            f"Vilken årstid är det i {month}?",
            f"Vilken årstid hör {month} till?",
            f"Hör {month} till sommaren eller vintern?",
        )
        return QuestionAnswer(language, "calendar", pick(rng, asked), f"I Sverige hör {month} till {season}.")
    place = _PLACES[language][at]
    if english:
        asked = (
            f"Which month of the year is {month}?",
            f"What number is {month} among the months?",
            f"What is the {place} month?",
            f"Which month is the {place}?",
        )
        return QuestionAnswer(
            language, "calendar", pick(rng, asked), f"{month} is the {place} month of the year."
        )
    asked = (
        f"Vilken månad i ordningen är {month}?",
        f"Vilken är årets {place} månad?",
        f"Vad heter den {place} månaden?",
        f"Vilken är den {place} månaden?",
    )
    return QuestionAnswer(
        language, "calendar", pick(rng, asked), f"{month.capitalize()} är årets {place} månad."
    )
