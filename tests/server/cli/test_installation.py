"""The verbs over a real base and real adapters, laid out as an existing installation has them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from server.__main__ import main
from server.config.settings import RoutingOptions, Settings
from server.config.values import SettingsError
from server.live.catalogue import open_catalogue
from tests.server.surroundings import start_afresh

Out = pytest.CaptureFixture[str]


@pytest.fixture
def installation(
    tmp_path: Path, tiny_base: Path, tiny_adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    root = tmp_path / "an installation"
    shutil.copytree(tiny_base, root / "models" / "mistral-7b-instruct")
    shutil.copytree(tiny_adapters["en"], root / "lora_adapters" / "oneseek-7b-zero-v1.1-EN")
    shutil.copytree(tiny_adapters["sv"], root / "lora_adapters" / "oneseek-7b-zero-v1.1-SV")
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(root)
    return root


def settings(installation: Path, **changed: Any) -> Settings:
    return Settings(home=installation.parent / "home", **changed)


def told(capsys: Out, *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_adapters_list(installation: Path, capsys: Out) -> None:
    shown = told(capsys, "adapters", "list")
    assert shown["base"]["name"] == "mistral-7b-instruct"
    assert [(item["name"], item["language"], item["rank"]) for item in shown["adapters"]] == [
        ("oneseek-7b-zero-en@v1.1", "en", 4),
        ("oneseek-7b-zero-sv@v1.1", "sv", 8),
    ]
    assert all(item["active"] and item["digest"].startswith("sha256:") for item in shown["adapters"])
    assert main(["adapters", "list"]) == 0
    table = capsys.readouterr().out
    assert "oneseek-7b-zero-sv@v1.1" in table
    assert shown["adapters"][0]["digest"][7:19] in table


def test_an_adapter_that_does_not_fit_is_told_and_does_not_stop_the_rest(
    installation: Path, capsys: Out
) -> None:
    broken = installation / "lora_adapters" / "broken-v1"
    shutil.copytree(installation / "lora_adapters" / "oneseek-7b-zero-v1.1-SV", broken)
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    (installation / "weights").mkdir()
    (installation / "weights" / "old.pth").write_bytes(b"pickle")
    assert main(["adapters", "list"]) == 0
    captured = capsys.readouterr()
    assert "oneseek-7b-zero-sv@v1.1" in captured.out
    assert "broken-v1" in captured.err
    assert "old.pth" in captured.err


def test_an_adapter_that_the_settings_name_has_to_be_there(installation: Path, capsys: Out) -> None:
    assert main(["adapters", "list", "--adapters", "sv=missing"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("oneseek: missing: ")
    assert captured.err.count("\n") == 1


def test_an_adapter_is_served_under_the_name_that_the_settings_give(installation: Path, capsys: Out) -> None:
    path = installation / "lora_adapters" / "oneseek-7b-zero-v1.1-SV"
    shown = told(capsys, "adapters", "list", "--adapters", f"svenska@v2={path}")
    assert "svenska@v2" in [item["name"] for item in shown["adapters"]]
    assert main(["adapters", "list", "--adapters", f"base={path}"]) == 2
    assert capsys.readouterr().err.startswith("oneseek: adapters: ")


@pytest.mark.parametrize(
    ("arguments", "adapter", "reason"),
    [
        (["Kan du hjälpa mig med det här?"], "oneseek-7b-zero-sv", "language"),
        (["Could you help me with this, please?"], "oneseek-7b-zero-en", "language"),
        (["Could you help me?", "--header", "sv"], "sv", "header"),
        (["Could you help me?", "--header", "base"], None, "header"),
        (["Could you help me?", "--model", "oneseek-7b-zero-sv@v1.1"], "oneseek-7b-zero-sv@v1.1", "model"),
        (["42", "--accept-language", "sv-SE,en;q=0.5"], "oneseek-7b-zero-sv", "accept-language"),
        (["Können Sie mir bitte bei dieser Sache helfen?"], None, "no-adapter"),
        (
            ["ok", "--history", "Kan du hjälpa mig med det här?", "--history", "Vad betyder det här ordet?"],
            "oneseek-7b-zero-sv",
            "conversation",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,  # pyright: ignore[reportUnknownLambdaType]
)
def test_route_tells_the_decision(
    arguments: list[str], adapter: str | None, reason: str, installation: Path, capsys: Out
) -> None:
    shown = told(capsys, "route", *arguments)
    assert shown["reason"] == reason
    assert [item["name"] for item in shown["adapters"]] == ([adapter] if adapter else [])
    assert main(["route", *arguments]) == 0
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize("header", ["nobody", "sv=9999999", "sv=0.5,en"])
def test_a_header_that_cannot_be_is_a_mistake(header: str, installation: Path, capsys: Out) -> None:
    assert main(["route", "Hej", "--header", header]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("oneseek: X-OneSeek-Adapter")
    assert captured.err.count("\n") == 1


def test_languages_and_default_follow_the_settings(installation: Path, capsys: Out) -> None:
    swedish = ["route", "Kan du hjälpa mig med det här?"]
    flags = ["--routing-languages", "sv=oneseek-7b-zero-en", "--routing-default", "oneseek-7b-zero-sv"]
    assert told(capsys, *swedish, *flags)["adapters"][0]["name"] == "oneseek-7b-zero-en"
    assert told(capsys, "route", "42", *flags)["adapters"][0]["name"] == "oneseek-7b-zero-sv"
    german = ["route", "Können Sie mir bitte bei dieser Sache helfen?", "--routing-unsupported", "default"]
    assert told(capsys, *german, *flags)["adapters"][0]["name"] == "oneseek-7b-zero-sv"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (RoutingOptions(default="nobody"), "routing.default: .*nobody"),
        (RoutingOptions(languages={"sv": "nobody"}), "routing.languages: .*nobody"),
        (RoutingOptions(languages={"qq": "oneseek-7b-zero-sv"}), "routing.languages: .*'qq'"),
        (RoutingOptions(threshold=0.95), r"routing: .*\bsure\b"),
    ],
    ids=["default", "alias", "language", "threshold"],
)
def test_routing_that_leads_nowhere_is_refused(
    options: RoutingOptions, problem: str, installation: Path
) -> None:
    with pytest.raises(SettingsError, match=problem):
        _ = open_catalogue(settings(installation, routing=options)).router


def test_a_refusal_that_comes_late_still_names_its_origin(
    installation: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setenv("ONESEEK_ROUTING_DEFAULT", "nobody")
    assert main(["route", "Hej"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("oneseek: routing.default: ")
    assert told.endswith("(ONESEEK_ROUTING_DEFAULT)\n")
    assert "'nobody'" in told


def test_a_contested_language_is_pointed_out(installation: Path) -> None:
    folder = installation / "lora_adapters"
    shutil.copytree(folder / "oneseek-7b-zero-v1.1-SV", folder / "other-v1-SV")
    (note,) = open_catalogue(settings(installation)).notes
    assert "(oneseek-7b-zero-sv, other-sv)" in note


def test_models_tells_which_and_why(installation: Path, tiny_base: Path, capsys: Out) -> None:
    shutil.copytree(tiny_base, installation / "models" / "llama-2-7b-chat")
    shown = told(capsys, "models")
    assert shown["served"]["name"] == "mistral-7b-instruct"
    assert "models/mistral-7b-instruct" in shown["served"]["reason"]
    assert "llama-2-7b-chat" in [item["name"] for item in shown["others"]]
    assert main(["models", "--base-model", "models/llama-2-7b-chat"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("served   llama-2-7b-chat")
    assert "also     mistral-7b-instruct" in out


def test_a_base_that_is_not_there_is_a_failure_in_one_line(installation: Path, capsys: Out) -> None:
    assert main(["models", "--base-model", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("oneseek: nowhere: ")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["adapters", "show", "oneseek-7b-zero-svv"], "oneseek-7b-zero-sv"),
        (["ledger", "show", "oneseek-7b-zero-svv"], "oneseek-7b-zero-sv"),
        (["adapters", "promote", "oneseek-7b-zero-svv@v1"], "oneseek-7b-zero-sv"),
        (["route", "Hej", "--header", "oneseek-7b-zero-svv"], "oneseek-7b-zero-sv"),
        (["route", "Hej", "--model", "onesek"], "oneseek"),
        (["route", "Hej", "--routing-default", "oneseek-7b-zero-svv"], "oneseek-7b-zero-sv"),
        (["eval", "--adapter", "oneseek-7b-zero-svv"], "oneseek-7b-zero-sv"),
        (["merge", "--adapter", "oneseek-7b-zero-svv", "--output", "x"], "oneseek-7b-zero-sv"),
        (["serve", "--routing-default", "oneseek-7b-zero-svv"], "oneseek-7b-zero-sv"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",  # pyright: ignore[reportUnknownLambdaType]
)
def test_an_adapter_that_is_nearly_named_is_told_before_any_work(
    arguments: list[str], meant: str, installation: Path, capsys: Out
) -> None:
    assert main(arguments) in (1, 2)
    captured = capsys.readouterr()
    assert re.search(rf"(?<![\w-]){re.escape(meant)}(?![\w-])", captured.err.splitlines()[-1])
    assert "memory plan" not in captured.err, "no engine was started for it"


def test_an_adapter_that_is_served_from_a_folder_is_shown_too(installation: Path, capsys: Out) -> None:
    assert main(["adapters", "show", "sv"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("oneseek-7b-zero-sv@v1.1 in ")
    assert out.splitlines()[-1].startswith("oneseek-7b-zero-sv@v1.1 ")
    assert told(capsys, "adapters", "show", "sv")["rank"] == 8
