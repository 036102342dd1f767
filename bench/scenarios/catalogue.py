"""The list of scenarios that `oneseek bench run` can measure, by name."""

from __future__ import annotations

from bench.scenarios.scenario import ServingScenario
from bench.text.prompts import LengthSpread

ENGLISH, SWEDISH = (("en", 1.0),), (("sv", 1.0),)

SCENARIOS = (
    ServingScenario("english", "English prompts, answered by the English adapter", ENGLISH),
    ServingScenario("swedish", "Swedish prompts, answered by the Swedish adapter", SWEDISH),
    ServingScenario("mixed", "English and Swedish prompts, half and half"),
    ServingScenario("mixed-90-10", "nine English prompts for each Swedish one", (("en", 0.9), ("sv", 0.1))),
    ServingScenario("base", "English and Swedish prompts, all answered by the base", target="base"),
    ServingScenario(
        "front-end",
        "the base of a server without adapters, all prompts and answers of the same length",
        target="base",
        plain=True,
        prompt=LengthSpread(24, 0, 24, 24),
        answer=LengthSpread(64, 0, 64, 64),
    ),
    ServingScenario(
        "conversation", "conversations of four turns; each prompt includes the earlier turns", turns=4
    ),
    ServingScenario(
        "long-among-short", "short prompts, but one in ten has 400 to 1,800 words", long_share=0.1
    ),
    ServingScenario("adapter-churn", "adapters are loaded and unloaded while requests run", event="churn"),
    ServingScenario(
        "zipf-2", "2 adapters with Zipf popularity", target="adapters", adapters=2, slots=8, zipf=1.0
    ),
    ServingScenario(
        "zipf-16",
        "16 adapters with Zipf popularity, 8 adapter slots",
        target="adapters",
        adapters=16,
        slots=8,
        zipf=1.0,
    ),
    ServingScenario(
        "zipf-128",
        "128 adapters with Zipf popularity, 8 adapter slots",
        target="adapters",
        adapters=128,
        slots=8,
        zipf=1.0,
    ),
    ServingScenario(
        "zipf-1000",
        "1,000 adapters with Zipf popularity, 8 adapter slots",
        target="adapters",
        adapters=1000,
        slots=8,
        zipf=1.0,
    ),
    ServingScenario("hot-swap", "one adapter is replaced by another version halfway", event="swap"),
    ServingScenario("cancel-storm", "half of the clients disconnect during their answer", cancelled=0.5),
    ServingScenario(
        "structured",
        "answers are JSON objects that follow a schema",
        structured=True,
        answer=LengthSpread(160, 0, 160, 160),
    ),
    ServingScenario("multi-model", "one question to the base and both adapters together", voices=3),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def find_scenario(name: str) -> ServingScenario:
    """Return the scenario called `name`. Raises `ValueError` if it is unknown; the message lists all
    names.
    """
    if name not in BY_NAME:
        raise ValueError(f"the scenario {name!r} is unknown; use one of {', '.join(BY_NAME)}")
    return BY_NAME[name]
