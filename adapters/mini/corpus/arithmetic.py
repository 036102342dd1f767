"""Draw training questions with simple arithmetic: sums, counting and comparing numbers, in digits and in
words.
"""

from __future__ import annotations

import random

from adapters.mini.corpus.sources import Language, pick
from adapters.mini.corpus.talk import QuestionAnswer

WORDS: dict[Language, tuple[str, ...]] = {
    "en": (
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ),
    "sv": (
        "noll",
        "ett",
        "två",
        "tre",
        "fyra",
        "fem",
        "sex",
        "sju",
        "åtta",
        "nio",
        "tio",
        "elva",
        "tolv",
        "tretton",
        "fjorton",
        "femton",
        "sexton",
        "sjutton",
        "arton",
        "nitton",
        "tjugo",
    ),
}
_NAMES: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {"+": ("plus",), "-": ("minus",), "*": ("times", "multiplied by"), "/": ("divided by",)},
    "sv": {"+": ("plus",), "-": ("minus",), "*": ("gånger",), "/": ("delat med", "dividerat med")},
}
_ASK: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is {}?",
        "What's {}?",
        "How much is {}?",
        "{}?",
        "{} =",
        "{}",
        "Calculate {}.",
        "What does {} make?",
        "Can you work out {}?",
        "Do you know what {} is?",
        "Tell me what {} is.",
        "{} is?",
    ),
    "sv": (
        "Vad är {}?",
        "Vad blir {}?",
        "Hur mycket är {}?",
        "{}?",
        "{} =",
        "{}",
        "Räkna ut {}.",
        "Vad gör {}?",
        "Kan du räkna ut {}?",
        "Vet du vad {} är?",
        "Säg vad {} är.",
        "Hur mycket blir {}?",
        "{} blir?",
    ),
}


def operands(rng: random.Random) -> tuple[int, str, int, int]:
    """Draw a calculation as first number, operator, second number and result: sums and differences with
    results up to 200, products up to 12 × 12, and divisions without remainder.
    """
    sign = rng.choice("+++--**/")
    if sign == "*":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        return a, sign, b, a * b
    if sign == "/":
        b, result = rng.randint(1, 10), rng.randint(0, 10)
        return b * result, sign, b, result
    top = rng.choice((10, 10, 20, 20, 50, 100))
    a, b = rng.randint(0, top), rng.randint(0, top)
    if sign == "-" and b > a:
        a, b = b, a
    return a, sign, b, a + b if sign == "+" else a - b


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def spell(a: int, sign: str, b: int, result: int, language: Language, name: str) -> str:
    """Return a sentence with the calculation and its result, such as `Seven plus five is twelve.` Write the
    numbers in words if there is a word for each of the three, otherwise in digits.
    """
    words = WORDS[language]
    verb = "is" if language == "en" else "är"
    if max(a, b, result) < len(words):
        return _capital(f"{words[a]} {name} {words[b]} {verb} {words[result]}.")
    return f"{a} {name} {b} {verb} {result}."


def calculate(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question with a calculation, such as `What is 7 + 5?`, and its answer."""
    a, sign, b, result = operands(rng)
    name = rng.choice(_NAMES[language][sign])
    style = rng.random()
    if style < 0.55:
        shown = {"*": rng.choice("*×x·"), "/": rng.choice("/:÷")}.get(sign, sign)
        text = f"{a} {shown} {b}" if rng.random() < 0.7 else f"{a}{shown}{b}"
        answer = f"{a} {sign.translate(str.maketrans('*/', '×÷'))} {b} = {result}."
        translated = answer
    elif style < 0.75 or max(a, b, result) >= len(WORDS[language]):
        text, answer = f"{a} {name} {b}", spell(a, sign, b, result, language, name).replace(".", "") + "."
        if max(a, b, result) < len(WORDS[language]):
            verb = "is" if language == "en" else "är"
            answer = f"{a} {name} {b} {verb} {result}."
        translated = None
    else:
        words = WORDS[language]
        text, answer = f"{words[a]} {name} {words[b]}", spell(a, sign, b, result, language, name)
        translated = None
    return QuestionAnswer(
        language, "arithmetic", _capital(pick(rng, _ASK[language]).format(text)), answer, translated
    )


def count(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a number exercise and its answer: counting up or down, writing a number in words, neighbours, even
    or odd, bigger or smaller, double or half.
    """
    english = language == "en"
    way = rng.randrange(7)
    if way == 0:
        top = rng.choice((3, 5, 10, 10, 10, 12, 20))
        upward = rng.random() < 0.7
        numbers = range(1, top + 1) if upward else range(top, 0, -1)
        answer = ", ".join(map(str, numbers)) + "."
        if english:
            asked = (
                (f"Count to {top}.", f"Can you count to {top}?", f"Count from 1 to {top}.")
                if upward
                else (
                    f"Count backwards from {top}.",
                    f"Count down from {top}.",
                    f"Can you count down from {top}?",
                )
            )
        else:
            asked = (
                (f"Räkna till {top}.", f"Kan du räkna till {top}?", f"Räkna från 1 till {top}.")
                if upward
                else (
                    f"Räkna baklänges från {top}.",
                    f"Räkna ner från {top}.",
                    f"Kan du räkna ner från {top}?",
                )
            )
        return QuestionAnswer(language, "count", pick(rng, asked), answer)
    if way == 1:
        n, after = rng.randint(1, 30), rng.random() < 0.6
        result = n + 1 if after else n - 1
        if english:
            side = "after" if after else "before"
            asked = (
                f"What number comes {side} {n}?",
                f"What comes {side} {n}?",
                f"Which number is {side} {n}?",
            )
            return QuestionAnswer(language, "count", pick(rng, asked), f"The number {side} {n} is {result}.")
        side = "efter" if after else "före"
        asked = (
            f"Vilket tal kommer {side} {n}?",
            f"Vad kommer {side} {n}?",
            f"Vilken siffra kommer {side} {n}?",
        )
        return QuestionAnswer(language, "count", pick(rng, asked), f"Talet {side} {n} är {result}.")
    if way == 2:
        n = rng.randint(1, 50)
        if english:
            asked = (f"Is {n} even or odd?", f"Is {n} an even number?", f"Is {n} odd?")
            answer = f"{n} is {'even' if n % 2 == 0 else 'odd'}."
        else:
            asked = (f"Är {n} jämnt eller udda?", f"Är {n} ett jämnt tal?", f"Är {n} udda?")
            answer = f"{n} är {'jämnt' if n % 2 == 0 else 'udda'}."
        return QuestionAnswer(language, "count", pick(rng, asked), answer)
    if way == 3:
        a, b = rng.sample(range(60), 2)
        big = rng.random() < 0.6
        if english:
            word = rng.choice(("bigger", "larger", "more")) if big else rng.choice(("smaller", "less"))
            asked = (
                f"Which is {word}, {a} or {b}?",
                f"What is {word}, {a} or {b}?",
                f"What's {word}: {a} or {b}?",
            )
            answer = (
                f"{max(a, b)} is bigger than {min(a, b)}."
                if big
                else f"{min(a, b)} is smaller than {max(a, b)}."
            )
        else:
            word = rng.choice(("störst", "mest", "större")) if big else rng.choice(("minst", "mindre"))
            asked = (
                f"Vilket är {word}, {a} eller {b}?",
                f"Vad är {word}, {a} eller {b}?",
                f"Vilket tal är {word}, {a} eller {b}?",
            )
            answer = (
                f"{max(a, b)} är större än {min(a, b)}." if big else f"{min(a, b)} är mindre än {max(a, b)}."
            )
        return QuestionAnswer(language, "count", pick(rng, asked), answer)
    if way == 4:
        n = rng.randint(1, 20)
        if english:
            asked = (f"What is double {n}?", f"What is twice {n}?", f"Double {n}.")
            return QuestionAnswer(language, "count", pick(rng, asked), f"Double {n} is {2 * n}.")
        asked = (f"Vad är dubbelt så mycket som {n}?", f"Vad är dubbla {n}?", f"Vad är det dubbla av {n}?")
        return QuestionAnswer(language, "count", pick(rng, asked), f"Dubbelt så mycket som {n} är {2 * n}.")
    if way == 5:
        n = 2 * rng.randint(1, 20)
        if english:
            asked = (f"What is half of {n}?", f"What's half of {n}?", f"How much is half of {n}?")
            return QuestionAnswer(language, "count", pick(rng, asked), f"Half of {n} is {n // 2}.")
        asked = (f"Vad är hälften av {n}?", f"Hur mycket är hälften av {n}?", f"Vad är halva {n}?")
        return QuestionAnswer(language, "count", pick(rng, asked), f"Hälften av {n} är {n // 2}.")
    n = rng.randint(0, 20)
    word = WORDS[language][n]
    if english:
        asked = (
            f"How do you write {n} in letters?",
            f"How do you spell {n}?",
            f"Write {n} in words.",
            f"What is {n} in words?",
        )
        return QuestionAnswer(language, "count", pick(rng, asked), f'{n} is written "{word}".')
    asked = (
        f"Hur skriver man {n} med bokstäver?",
        f"Hur stavas {n}?",
        f"Skriv {n} med bokstäver.",
        f"Vad är {n} i ord?",
    )
    return QuestionAnswer(language, "count", pick(rng, asked), f'{n} skrivs "{word}".')


def too_big(rng: random.Random, language: Language) -> str:
    """Draw a question with a calculation whose numbers are too large for the mini base model to answer."""
    sign = rng.choice("+-*/")
    if rng.random() < 0.6:
        a, b = rng.randint(101, 99999), rng.randint(2, 9999)
    else:
        sign, a, b = "*", rng.randint(13, 99), rng.randint(13, 99)
    name = rng.choice((sign, {"*": "×"}.get(sign, sign), rng.choice(_NAMES[language][sign])))
    return _capital(pick(rng, _ASK[language]).format(f"{a} {name} {b}"))
