"""Draw training conversations in which a later question refers to an earlier one, such as "And in
Swedish?".
"""

from __future__ import annotations

import random
from collections.abc import Callable

from adapters.mini.corpus import arithmetic, knowledge, nonsense, topical, words
from adapters.mini.corpus.sources import Language, other, pick, read_table, topics, word_lists
from adapters.mini.corpus.talk import QuestionAnswer

_SAY_IN: dict[Language, tuple[str, ...]] = {
    "en": (
        "And in Swedish?",
        "In Swedish?",
        "In Swedish, please.",
        "And in Swedish, please?",
        "What is that in Swedish?",
        "Say that in Swedish.",
        "Can you say that in Swedish?",
        "Now in Swedish.",
        "How do you say that in Swedish?",
    ),
    "sv": (
        "Och på engelska?",
        "På engelska?",
        "På engelska, tack.",
        "Och på engelska då?",
        "Vad blir det på engelska?",
        "Säg det på engelska.",
        "Kan du säga det på engelska?",
        "Nu på engelska.",
        "Hur säger man det på engelska?",
    ),
}
_AGAIN: dict[Language, tuple[str, ...]] = {
    "en": (
        "Say that again.",
        "Can you repeat that?",
        "What did you say?",
        "Repeat that, please.",
        "Once more, please.",
        "Pardon?",
        "Again, please.",
        "What?",
    ),
    "sv": (
        "Säg det igen.",
        "Kan du upprepa det?",
        "Vad sa du?",
        "Upprepa det, tack.",
        "En gång till, tack.",
        "Va?",
        "Igen, tack.",
        "Vad?",
    ),
}
_SURE: dict[Language, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        (
            "Are you sure?",
            "Really?",
            "How do you know?",
            "Is that true?",
            "Is that right?",
            "Why?",
            "How come?",
            "Are you certain?",
            "How do you know that?",
        ),
        (
            "I learned it from the texts I was trained on, and it belongs to the things I know well.",
            "It is what my texts taught me. If it matters to you, do check it elsewhere too.",
        ),
    ),
    "sv": (
        (
            "Är du säker?",
            "Verkligen?",
            "Hur vet du det?",
            "Är det sant?",
            "Stämmer det?",
            "Varför?",
            "Hur kommer det sig?",
            "Är det rätt?",
            "Hur vet du det då?",
        ),
        (
            "Det lärde jag mig av texterna jag är tränad på, och det hör till det jag kan väl.",
            "Så står det i mina texter. Är det viktigt för dig, "
            "så kontrollera det gärna på annat håll också.",
        ),
    ),
}
_MORE: dict[Language, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        (
            "Tell me more.",
            "More, please.",
            "Tell me more about it.",
            "What else?",
            "Go on.",
            "Anything else?",
            "Can you say more?",
            "Explain more.",
        ),
        (
            "That is all I know about it. My world is small, but there are other corners of it to visit.",
            "More than that I don't know, I'm afraid. Ask me about something else!",
        ),
    ),
    "sv": (
        (
            "Berätta mer.",
            "Mer, tack.",
            "Berätta mer om det.",
            "Vad mer?",
            "Fortsätt.",
            "Något mer?",
            "Kan du säga mer?",
            "Förklara mer.",
        ),
        (
            "Det är allt jag vet om det. Min värld är liten, men det finns andra hörn av den att besöka.",
            "Mer än så vet jag tyvärr inte. Fråga mig om något annat!",
        ),
    ),
}
_ANOTHER: dict[Language, tuple[str, ...]] = {
    "en": (
        "Another one!",
        "One more!",
        "Another one, please.",
        "One more, please.",
        "Tell me another.",
        "More!",
        "Again!",
        "Do you have another one?",
    ),
    "sv": (
        "En till!",
        "Ett till!",
        "En till, tack.",
        "Ett till, tack.",
        "Ta ett till.",
        "Mer!",
        "Igen!",
        "Har du fler?",
    ),
}

DialogueTurns = tuple[QuestionAnswer, ...]


def _then(first: QuestionAnswer, asked: str, answer: str, language: Language | None = None) -> DialogueTurns:
    return (first, QuestionAnswer(language or first.language, "follow-up", asked, answer))


def _both_languages(rng: random.Random, language: Language) -> DialogueTurns:
    first = rng.choice((knowledge.fact, knowledge.definition, knowledge.capital))(rng, language)
    assert first.translated is not None
    turns = _then(first, pick(rng, _SAY_IN[language]), first.translated)
    if rng.random() < 0.2:
        turns += (QuestionAnswer(language, "follow-up", pick(rng, _SAY_IN[other(language)]), first.answer),)
    return turns


def _and_country(rng: random.Random, language: Language) -> DialogueTurns:
    rows = rng.sample(read_table("capitals", ";"), rng.randint(2, 4))
    turns: DialogueTurns = (knowledge.capital(rng, language, rows[0]),)
    for row in rows[1:]:
        country = row[0] if language == "en" else row[2]
        owner = country if country.endswith("s") else country + "s"
        asked = (
            (
                f"And {country}?",
                f"And of {country}?",
                f"What about {country}?",
                f"And the capital of {country}?",
                f"{country}?",
            )
            if language == "en"
            else (
                f"Och {country}?",
                f"Och {owner}?",
                f"Och i {country}?",
                f"{country} då?",
                f"Och {country} då?",
            )
        )
        turns += (
            QuestionAnswer(language, "follow-up", pick(rng, asked), knowledge.capital_answer(row, language)),
        )
    unknown = rng.choice(word_lists(language)["country"])
    if rng.random() < 0.3:
        asked = f"And {unknown}?" if language == "en" else f"Och {unknown}?"
        turns += (
            QuestionAnswer(language, "outside", asked, pick(rng, topics(language, "outside")[0].answers)),
        )
    return turns


def _and_word(rng: random.Random, language: Language) -> DialogueTurns:
    rows = rng.sample(read_table("words", " = "), rng.randint(2, 4))
    to_swedish = language == "en"
    asked = rows[0][0] if to_swedish else rows[0][1].split(" eller ")[0]
    first = (
        pick(rng, ("What is {} in Swedish?", "How do you say {} in Swedish?"))
        if to_swedish
        else pick(rng, ("Vad heter {} på engelska?", "Hur säger man {} på engelska?"))
    ).format(asked)
    turns: DialogueTurns = ()
    for n, (english, swedish) in enumerate(rows):
        word = english if to_swedish else swedish.split(" eller ")[0]
        question = (
            first
            if n == 0
            else pick(
                rng,
                (f"And {word}?", f'And "{word}"?', f"What about {word}?", f"{word}?")
                if to_swedish
                else (f"Och {word}?", f'Och "{word}"?', f"{word} då?", f"Och {word} då?"),
            )
        )
        answer = words.translation_answer(english, swedish if to_swedish else word, language, to_swedish)
        turns += (QuestionAnswer(language, "follow-up", question[:1].upper() + question[1:], answer),)
    return turns


def _and_opposite(rng: random.Random, language: Language) -> DialogueTurns:
    turns: DialogueTurns = (words.opposite(rng, language),)
    for _ in range(rng.randint(1, 3)):
        word, against = words.opposite_pair(rng, language)
        asked = (
            (f"And of {word}?", f"And {word}?", f"What about {word}?")
            if language == "en"
            else (f"Och till {word}?", f"Och {word}?", f"{word.capitalize()} då?")
        )
        turns += (
            QuestionAnswer(
                language, "follow-up", pick(rng, asked), words.opposite_answer(word, against, language)
            ),
        )
    return turns


def _and_sum(rng: random.Random, language: Language) -> DialogueTurns:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    total = a + b
    first = f"What is {a} + {b}?" if language == "en" else f"Vad är {a} + {b}?"
    turns: DialogueTurns = (QuestionAnswer(language, "arithmetic", first, f"{a} + {b} = {total}."),)
    for _ in range(rng.randint(1, 3)):
        n = rng.randint(1, 10)
        minus = rng.random() < 0.4 and total >= n
        new = total - n if minus else total + n
        sign, name = ("-", "minus") if minus else ("+", "plus")
        asked = (
            (f"And {name} {n}?", f"{name.capitalize()} {n}?", f"And {sign} {n}?", f"{sign} {n}?")
            if language == "en"
            else (f"Och {name} {n}?", f"{name.capitalize()} {n}?", f"Och {sign} {n}?", f"{sign} {n}?")
        )
        turns += (QuestionAnswer(language, "follow-up", pick(rng, asked), f"{total} {sign} {n} = {new}."),)
        total = new
    return turns


def _another(rng: random.Random, language: Language) -> DialogueTurns:
    name = rng.choice(("joke", "joke", "riddle", "fun_fact", "proverb"))
    topic = next(topic for topic in topics(language, "smalltalk") if topic.name == name)
    answers = rng.sample(topic.answers, min(len(topic.answers), rng.randint(2, 3)))
    first = topical.from_topic(topic, rng, language)
    turns: DialogueTurns = (QuestionAnswer(language, name, first.question, answers[0]),)
    for answer in answers[1:]:
        turns += (QuestionAnswer(language, "follow-up", pick(rng, _ANOTHER[language]), answer),)
    return turns


def _your_name(rng: random.Random, language: Language) -> DialogueTurns:
    name = rng.choice(word_lists(language)["name"])
    if rng.random() < 0.35:
        name = nonsense.word(rng, language).capitalize()
    english = language == "en"
    greeting = rng.choice(("", "", "Hi! ", "Hello! ") if english else ("", "", "Hej! ", "Hallå! "))
    said = pick(
        rng,
        (
            f"My name is {name}.",
            f"I am called {name}.",
            f"Call me {name}.",
            f"My name's {name}.",
            f"You can call me {name}.",
        )
        if english
        else (f"Jag heter {name}.", f"Mitt namn är {name}.", f"Kalla mig {name}.", f"Jag kallas {name}."),
    )
    answer = f"Nice to meet you, {name}!" if english else f"Trevligt att träffas, {name}!"
    turns: DialogueTurns = (QuestionAnswer(language, "introduction", greeting + said, answer),)
    between = rng.choices((0, 1, 2), (3, 2, 1))[0]
    turns += tuple(
        rng.choice((knowledge.fact, topical.smalltalk, arithmetic.calculate))(rng, language)
        for _ in range(between)
    )
    if rng.random() < 0.75:
        asked = pick(
            rng,
            (
                "What is my name?",
                "What's my name?",
                "Do you remember my name?",
                "What am I called?",
                "Who am I?",
            )
            if english
            else (
                "Vad heter jag?",
                "Minns du vad jag heter?",
                "Vad är mitt namn?",
                "Kommer du ihåg mitt namn?",
                "Vem är jag?",
            ),
        )
        turns += (
            QuestionAnswer(
                language, "follow-up", asked, f"Your name is {name}." if english else f"Du heter {name}."
            ),
        )
    return turns


def _small_questions(rng: random.Random, language: Language) -> DialogueTurns:
    first = rng.choice(
        (
            knowledge.fact,
            knowledge.definition,
            knowledge.capital,
            topical.identity_exchange,
            arithmetic.calculate,
        )
    )(rng, language)
    if rng.random() < 0.3:
        return _then(first, pick(rng, _AGAIN[language]), first.answer)
    asked, said = rng.choice((_SURE, _MORE))[language]
    return _then(first, pick(rng, asked), pick(rng, said))


def _how_are_you(rng: random.Random, language: Language) -> DialogueTurns:
    found = {topic.name: topic for topic in topics(language, "smalltalk")}
    names = ["hello"] if rng.random() < 0.5 else []
    names += [
        "how_are_you",
        rng.choice(("i_am_fine", "i_am_fine", "sad", "tired", "bored", "afraid", "angry", "lonely", "ill")),
    ]
    names += ["thanks"] if rng.random() < 0.5 else []
    names += ["bye"] if rng.random() < 0.4 else []
    return tuple(topical.from_topic(found[name], rng, language) for name in names)


CHAINS: tuple[Callable[[random.Random, Language], DialogueTurns], ...] = (
    _both_languages,
    _both_languages,
    _and_country,
    _and_word,
    _and_opposite,
    _and_sum,
    _another,
    _your_name,
    _small_questions,
    _how_are_you,
)


def chain(rng: random.Random, language: Language) -> DialogueTurns:
    """Draw a short conversation in which each question builds on the ones before."""
    return rng.choice(CHAINS)(rng, language)
