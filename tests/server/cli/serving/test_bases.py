"""Several bases on the command line: what is listed, who would answer, and where an adapter is added."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.__main__ import main
from tests.server.two_bases import EN, ENGLISH, NORTH, SOUTH, SV, SWEDISH, TwoBases

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoBases:
    return TwoBases.make(tmp_path_factory.mktemp("two"))


@pytest.fixture
def ask(
    two: TwoBases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ask:
    """What a verb prints as JSON, with both bases in oneseek.yaml."""
    monkeypatch.chdir(tmp_path)
    bases = {
        SOUTH: {"path": str(two.bases[SOUTH]), "adapters": [f"{EN}={two.root / 'adapters' / EN}"]},
        NORTH: {
            "path": str(two.bases[NORTH]),
            "adapters": [f"{SV}={two.root / 'adapters' / SV}"],
            "on_demand": True,
        },
    }
    languages = {"en": f"{SOUTH}:{EN}", "sv": f"{NORTH}:{SV}"}
    document = {"bases": bases, "home": str(tmp_path / "home"), "routing": {"languages": languages}}
    (tmp_path / "oneseek.yaml").write_text(json.dumps(document))

    def run(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_the_bases_and_their_adapters_are_listed(ask: Ask) -> None:
    shown = ask("models")
    assert [(one["name"], one["on_demand"]) for one in shown["bases"]] == [(SOUTH, False), (NORTH, True)]
    assert shown["served"]["name"] == SOUTH
    listed = ask("adapters", "list")
    assert [one["name"] for one in listed["bases"]] == [SOUTH, NORTH]
    assert {one["alias"]: one["base_name"] for one in listed["adapters"]} == {EN: SOUTH, SV: NORTH}


def test_flags_give_each_base_its_own_settings(ask: Ask, two: TwoBases) -> None:
    flags = [f"--base={NORTH}={{path: {two.bases[NORTH]}, on_demand: true}}", f"--base=x={two.bases[SOUTH]}"]
    shown = ask("models", *flags, "--routing-languages", f"sv={NORTH}")
    assert [(one["name"], one["on_demand"]) for one in shown["bases"]] == [(NORTH, True), ("x", False)]


@pytest.mark.parametrize(
    ("text", "flags", "base", "target"),
    [
        (SWEDISH, [], NORTH, [SV]),
        (ENGLISH, [], SOUTH, [EN]),
        (ENGLISH, ["--model", f"{NORTH}:{SV}"], NORTH, [SV]),
        (SWEDISH, ["--header", "base"], SOUTH, []),
    ],
)
def test_who_would_answer(ask: Ask, text: str, flags: list[str], base: str, target: list[str]) -> None:
    shown = ask("route", text, *flags)
    assert (shown["base"], [one["name"] for one in shown["adapters"]]) == (base, target)


def test_an_adapter_is_added_to_the_base_that_it_fits(ask: Ask, two: TwoBases, tmp_path: Path) -> None:
    folder = two.adapter(NORTH, tmp_path / "new", 5)
    for alias in ("mine", f"{NORTH}:other"):
        ask("adapters", "add", str(folder), "--alias", alias, "--version", "v1")
    assert main(["adapters", "add", str(folder), "--alias", f"{SOUTH}:third", "--version", "v1"]) != 0
    listed = {one["alias"]: one["base_name"] for one in ask("adapters", "list")["adapters"]}
    assert listed == {EN: SOUTH, SV: NORTH, "mine": NORTH, "other": NORTH}
    assert len(ask("adapters", "verify")["versions"]) == 2
