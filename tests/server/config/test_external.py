"""The `external_models:` section, in the file and elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.config.external import MAX_MODELS, parse_external_models
from server.config.settings import OPTIONS, resolve_settings
from server.config.values import SettingsError

GOOD = {"url": "https://api.example.com/v1", "model": "large"}
FILE = """
port: 8123
external_models:
  Far:
    url: https://api.example.com/v1
    model: large
    api_key_env: FAR_KEY
    timeout: 30
  near: {url: "http://127.0.0.1:9000/v1", model: no}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "oneseek.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_names_services(tmp_path: Path) -> None:
    found = resolve_settings(environ={}, config=written(tmp_path, FILE.replace("model: no", "model: 'no'")))
    far, near = found.settings.external.values()
    assert list(found.settings.external) == ["far", "near"]
    assert (far.name, far.url, far.model) == ("Far", "https://api.example.com/v1", "large")
    assert (far.api_key_env, far.timeout) == ("FAR_KEY", 30)
    assert (near.api_key_env, near.timeout, near.model) == (None, 60, "no")
    assert found.origins["external_models"] == "oneseek.yaml:4"
    option = next(option for option in OPTIONS if option.path == "external_models")
    assert option.render(found.value(option)) == "Far, near"


def test_elsewhere_it_is_json() -> None:
    text = json.dumps({"far": GOOD})
    for flags, environ in (({"external_models": text}, {}), ({}, {"ONESEEK_EXTERNAL_MODELS": text})):
        assert resolve_settings(flags, environ).settings.external["far"].model == "large"
    with pytest.raises(SettingsError, match="external_models"):
        resolve_settings({"external_models": "far=x"}, {})


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "example.com/v1"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://user:secret@example.com/v1"}, "url"),
        ({"url": "https://example.com/v1?key=secret"}, "url"),
        ({"url": "https://example.com/v1#part"}, "url"),
        ({"url": "https://example.com:99999/v1"}, "url"),
        ({"url": "https://exa mple.com/v1"}, "url"),
        ({"url": "https://[::1/v1"}, "url"),
        ({"url": 5}, "url"),
        ({"url": None}, "url"),
        ({"model": ""}, "model"),
        ({"model": ["large"]}, "model"),
        ({"api_key_env": "sk-secret"}, "api_key_env"),
        ({"api_key_env": ""}, "api_key_env"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": 1e9}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"api_key": "secret"}, "api_key"),
        ({"tiemout": 3}, "tiemout"),
    ],
)
def test_what_does_not_fit_is_named_and_never_repeated(change: dict[str, Any], where: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_external_models({"far": json.dumps(GOOD | change)})
    assert refused.value.name == f"external_models.far.{where}"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("missing", ["url", "model"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_external_models({"far": json.dumps({k: v for k, v in GOOD.items() if k != missing})})
    assert refused.value.name == f"external_models.far.{missing}"


@pytest.mark.parametrize(
    "name", ["", "base", "AUTO", "oneseek", "a b", "å", "a,b", "a=b", "a:b", "x" * 65, "-x"]
)
def test_a_name_is_one_that_requests_can_use(name: str) -> None:
    with pytest.raises(SettingsError):
        parse_external_models({name: json.dumps(GOOD)})


def test_names_are_unique_and_few() -> None:
    with pytest.raises(SettingsError):
        parse_external_models({"far": json.dumps(GOOD), "FAR": json.dumps(GOOD)})
    with pytest.raises(SettingsError):
        parse_external_models({f"far{n}": json.dumps(GOOD) for n in range(MAX_MODELS + 1)})


def test_a_mistake_in_the_file_has_its_line(tmp_path: Path) -> None:
    for text in (FILE.replace("timeout: 30", "timeout: soon"), "external_models:\n  far: fast\n"):
        with pytest.raises(SettingsError) as refused:
            resolve_settings(environ={}, config=written(tmp_path, text))
        assert refused.value.name.startswith("external_models.")
        assert refused.value.origin is not None
        assert refused.value.origin.startswith("oneseek.yaml:")
    with pytest.raises(SettingsError, match="external_models"):
        resolve_settings(environ={}, config=written(tmp_path, "external_models: far\n"))


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "nyckel-å"])
def test_a_key_has_to_be_there(value: str | None) -> None:
    options = parse_external_models({"far": json.dumps(GOOD | {"api_key_env": "FAR_KEY"})})["far"]
    with pytest.raises(SettingsError) as refused:
        options.read_key({} if value is None else {"FAR_KEY": value})
    assert refused.value.name == "external_models.far.api_key_env"
    assert "nyckel" not in str(refused.value)
    assert options.read_key({"FAR_KEY": " sk-1\n"}) == "sk-1"
