from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.limits import LIMITS
from server.config.schema import Option
from server.config.settings import (
    OPTIONS,
    PREFIX,
    EngineOptions,
    ResolvedSettings,
    RolloutOptions,
    RoutingOptions,
    Settings,
    resolve_settings,
)
from server.config.values import SettingsError, Size, parse_size, render_size

BY_PATH = {option.path: option for option in OPTIONS}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_yaml(text: str, environ: dict[str, str] | None = None) -> ResolvedSettings:
    Path("oneseek.yaml").write_text(text, encoding="utf-8")
    return resolve_settings(environ=environ or {})


def test_without_any_source_everything_is_the_default() -> None:
    found = resolve_settings(environ={})
    assert found.settings == Settings(home=Path.home() / ".oneseek")
    assert set(found.origins) == set(BY_PATH)
    assert set(found.origins.values()) == {"default"}


def test_flags_go_before_environment_before_file_before_defaults() -> None:
    Path("oneseek.yaml").write_text("host: localhost\nport: 1\nmax_queue: 1\n", encoding="utf-8")
    found = resolve_settings({"port": "3"}, {"ONESEEK_PORT": "2", "ONESEEK_MAX_QUEUE": "2"})
    assert (found.settings.host, found.settings.port, found.settings.max_queue) == ("localhost", 3, 2)
    assert found.origins["host"] == "oneseek.yaml:1"
    assert found.origins["port"] == "flag --port"
    assert found.origins["max_queue"] == "ONESEEK_MAX_QUEUE"
    assert found.origins["log_level"] == "default"


def test_every_option_is_explained_and_its_names_are_its_own() -> None:
    for option in OPTIONS:
        assert option.help.endswith("."), option.path
        assert len(option.help) < 120, option.path
    assert len({option.flag for option in OPTIONS}) == len(OPTIONS)
    assert len({option.variable(PREFIX) for option in OPTIONS}) == len(OPTIONS)


def test_every_field_of_the_settings_is_an_option() -> None:
    sections = {"engine": EngineOptions, "routing": RoutingOptions, "rollout": RolloutOptions}
    paths = [field.name for field in dataclasses.fields(Settings) if field.name not in sections]
    paths += [f"{name}.{field.name}" for name, kind in sections.items() for field in dataclasses.fields(kind)]
    assert set(paths) == set(BY_PATH)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: typing.cast("Option", option).path)
def test_a_default_written_out_is_read_back(option: Option) -> None:
    if option.secret or option.default in ((), {}):
        return
    assert option.parse(option.render(option.default), "here") == option.default


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4096", 4096),
        ("4k", 4000),
        ("7B", 7),
        ("4KiB", 4096),
        ("2GiB", 2 * 1024**3),
        ("1.5 mib", 1536 * 1024),
        ("2gb", 2 * 10**9),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "GiB", "2 giga", "-1", "1e9", "2ib", "0x10", "٣" * 20])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_size(text)


@given(st.integers(min_value=1, max_value=2**50))
def test_a_size_survives_being_shown(size: int) -> None:
    assert parse_size(render_size(size)) == size


YAML = """
adapters:
  - one
  - sv=weights/two
engine: embedded
kv_cache_memory: 2GiB
prefix_caching: off
threads: null
routing:
  threshold: 0.7
  languages: {no: oneseek-no, sv: oneseek-sv}
"""


def test_the_file_has_lists_sections_sizes_and_norwegian() -> None:
    settings = from_yaml(YAML).settings
    assert settings.adapters == ("one", "sv=weights/two")
    assert settings.engine == EngineOptions(kind="embedded")
    assert settings.kv_cache_memory == 2 * 1024**3
    assert settings.prefix_caching is False
    assert settings.threads is None
    assert settings.routing.threshold == 0.7
    assert dict(settings.routing.languages) == {"no": "oneseek-no", "sv": "oneseek-sv"}


def test_lists_and_mappings_fit_one_variable() -> None:
    environ = {"ONESEEK_ADAPTERS": "one, sv=two", "ONESEEK_ROUTING_LANGUAGES": "sv=a,no=b"}
    settings = resolve_settings(environ=environ).settings
    assert settings.adapters == ("one", "sv=two")
    assert dict(settings.routing.languages) == {"sv": "a", "no": "b"}


def test_a_flag_given_twice_is_a_list_and_is_not_split() -> None:
    assert resolve_settings({"adapters": ["a,b", "c"]}, {}).settings.adapters == ("a,b", "c")


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert resolve_settings(environ={"ONESEEK_PORT": ""}).origins["port"] == "default"


def test_none_takes_back_what_a_lower_layer_set() -> None:
    assert resolve_settings({"threads": "none"}, {"ONESEEK_THREADS": "2"}).settings.threads is None


def test_other_variables_are_none_of_ours() -> None:
    assert (
        resolve_settings(environ={"PORT": "x", "HOME": "/", "oneseek_port": "x"}).origins["port"] == "default"
    )


def test_the_named_file_goes_before_the_one_at_hand(tmp_path: Path) -> None:
    Path("oneseek.yaml").write_text("port: 1\n", encoding="utf-8")
    other = tmp_path / "other file.yaml"
    other.write_text("\n\nport: 2\n", encoding="utf-8")
    assert resolve_settings(environ={"ONESEEK_CONFIG": str(other)}).origins["port"] == "other file.yaml:3"
    third = tmp_path / "third.yaml"
    third.write_text("port: 3\n", encoding="utf-8")
    assert resolve_settings(environ={"ONESEEK_CONFIG": str(other)}, config=third).settings.port == 3


REFUSED: list[tuple[Callable[[], object], str, list[str], str]] = [
    (lambda: from_yaml("port: 80O0"), "port", ["'80O0'"], "oneseek.yaml:1"),
    (lambda: from_yaml("host: a\nport: 99999"), "port", ["99999", "0", "65535"], "oneseek.yaml:2"),
    (lambda: from_yaml("prot: 80"), "prot", ["'port'"], "oneseek.yaml:1"),
    (lambda: from_yaml("port: 1\nport: 2"), "port", ["oneseek.yaml:1"], "oneseek.yaml:2"),
    (lambda: from_yaml("port: 8_000"), "port", ["'8_000'"], "oneseek.yaml:1"),
    (lambda: from_yaml('port: " 80"'), "port", ["' 80'"], "oneseek.yaml:1"),
    (lambda: resolve_settings({"port": "٨٠"}, {}), "port", ["'٨٠'"], "flag --port"),
    (
        lambda: resolve_settings(environ={"ONESEEK_DRAIN_SECONDS": "1_0"}),
        "drain_seconds",
        ["'1_0'"],
        "ONESEEK_DRAIN_SECONDS",
    ),
    (lambda: from_yaml("max_body: 1\u212a"), "max_body", ["'1K'", "2GiB"], "oneseek.yaml:1"),
    (lambda: from_yaml("port:"), "port", [], "oneseek.yaml:1"),
    (lambda: from_yaml("port: [1]"), "port", ["['1']"], "oneseek.yaml:1"),
    (lambda: from_yaml("adapters: {a: b}"), "adapters", ["{'a': 'b'}"], "oneseek.yaml:1"),
    (lambda: from_yaml("adapters: [[a]]"), "adapters", [], "oneseek.yaml:1"),
    (
        lambda: from_yaml("routing:\n  treshold: 1"),
        "routing.treshold",
        ["'routing.threshold'"],
        "oneseek.yaml:2",
    ),
    (lambda: from_yaml("routing:\n  stay: 1"), "routing.stay", ["1.0", "0", "0.999"], "oneseek.yaml:2"),
    (
        lambda: from_yaml("routing:\n  weights: {sv: many}"),
        "routing.weights",
        ["'many'", "'sv'"],
        "oneseek.yaml:2",
    ),
    (lambda: from_yaml("routing:\n  threshold: 2"), "routing.threshold", ["2.0", "0", "1"], "oneseek.yaml:2"),
    (lambda: from_yaml("routing: sv"), "routing", [], "oneseek.yaml:1"),
    (lambda: from_yaml("- port"), "the file", [], "oneseek.yaml:1"),
    (lambda: from_yaml("quantize: int9"), "quantize", ["'int9'", "'int8'"], "oneseek.yaml:1"),
    (
        lambda: resolve_settings(environ={"ONESEEK_PROT": "1"}),
        "ONESEEK_PROT",
        ["'ONESEEK_PORT'"],
        "environment",
    ),
    (
        lambda: resolve_settings(environ={"ONESEEK_MAX_BODY": "lots"}),
        "max_body",
        ["'lots'", "2GiB"],
        "ONESEEK_MAX_BODY",
    ),
    (
        lambda: resolve_settings(environ={"ONESEEK_DRAIN_SECONDS": "nan"}),
        "drain_seconds",
        ["'nan'"],
        "ONESEEK_DRAIN_SECONDS",
    ),
    (
        lambda: resolve_settings(environ={"ONESEEK_PREFIX_CACHING": "maybe"}),
        "prefix_caching",
        ["'maybe'"],
        "ONESEEK_PREFIX_CACHING",
    ),
    (
        lambda: resolve_settings({"routing.languages": ["sv"]}, {}),
        "routing.languages",
        ["['sv']"],
        "flag --routing-languages",
    ),
    (lambda: resolve_settings({"engine.kind": "vlm"}, {}), "engine", ["'vlm'", "'vllm'"], "flag --engine"),
    (
        lambda: resolve_settings({"max_num_batched_tokens": "8", "max_num_seqs": "32"}, {}),
        "max_num_batched_tokens",
        ["8", "max_num_seqs (32)"],
        "flag --max-num-batched-tokens",
    ),
    (lambda: resolve_settings({"prot": "8"}, {}), "prot", ["'port'"], "flag"),
    (
        lambda: resolve_settings({"request_timeout": "0"}, {}),
        "request_timeout",
        ["0.0"],
        "flag --request-timeout",
    ),
    (lambda: resolve_settings({"port": " "}, {}), "port", [], "flag --port"),
]
"""What is tried, the setting that is named, what the problem quotes, and the origin."""


@pytest.mark.parametrize(
    ("attempt", "name", "quoted", "origin"),
    REFUSED,
    ids=[f"{name} {quoted}" for _, name, quoted, _ in REFUSED],
)
def test_what_does_not_fit_is_refused_by_name(
    attempt: Callable[[], object], name: str, quoted: list[str], origin: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        attempt()
    assert (caught.value.name, caught.value.origin) == (name, origin)
    assert all(part in caught.value.problem for part in quoted), caught.value.problem


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", 0),
        ("max_connections", 10**7),
        ("max_bodies_memory", 4 * 1024**2 - 1),
        ("drain_delay", -1),
        ("drain_delay", 3601),
    ],
)
def test_what_connections_and_the_drain_are_given_is_bounded(name: str, value: int) -> None:
    with pytest.raises(SettingsError, match=name):
        resolve_settings({name: str(value)}, {})


def test_all_bodies_together_have_sixteen_times_the_largest_unless_told_otherwise() -> None:
    assert Settings(max_body=1000).body_memory == 16_000
    assert Settings(max_body=1000, max_bodies_memory=5000).body_memory == 5000


@pytest.mark.parametrize(
    ("content", "name", "origin"),
    [
        (b"port: [1", "oneseek.yaml", "oneseek.yaml:1"),
        (b"a: 1\n---\nb: 2\n", "oneseek.yaml", "oneseek.yaml:2"),
        (b"port: \xff", "oneseek.yaml", None),
        (b"#" * 300_000, "oneseek.yaml", None),
        (b"[" * 50_000, "oneseek.yaml", None),
        (b"port: !!python/object/apply:os.system ['true']", "port", "oneseek.yaml:1"),
    ],
    ids=["syntax", "two documents", "not UTF-8", "too large", "too deep", "python tag"],
)
def test_what_is_no_settings_file_is_refused(content: bytes, name: str, origin: str | None) -> None:
    Path("oneseek.yaml").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ={})
    assert (caught.value.name, caught.value.origin) == (name, origin)


def test_an_alias_bomb_is_refused_and_not_unfolded() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(SettingsError) as caught:
        from_yaml("\n".join(lines))
    assert (caught.value.name, caught.value.origin) == ("a0", "oneseek.yaml:1")


def test_a_file_that_was_asked_for_must_exist() -> None:
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ={}, config=Path("missing.yaml"))
    assert caught.value.name == "missing.yaml"


@pytest.mark.parametrize("empty", ["", "# nothing\n", "routing:\n", "null\n"])
def test_an_empty_file_sets_nothing(empty: str) -> None:
    assert set(from_yaml(empty).origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ONESEEK_PORT", "tcp://10.0.0.7:8000"),
        ("ONESEEK_SERVICE_HOST", "10.0.0.7"),
        ("ONESEEK_PORT_8000_TCP_ADDR", "10.0.0.7"),
    ],
)
def test_the_links_that_kubernetes_injects_are_explained(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        resolve_settings(environ={name: value})


@given(st.sampled_from(OPTIONS), st.text(max_size=12))
def test_any_text_is_either_a_value_or_a_named_refusal(option: Option, text: str) -> None:
    refusal = None
    try:
        resolve_settings({option.path: text}, {})
    except SettingsError as error:
        refusal = error.name
    assert refusal in (None, option.name, "max_num_batched_tokens")


@pytest.mark.parametrize(
    "name", ["api_keys", "admin_keys", "metrics_keys", "allowed_hosts", "trusted_proxies"]
)
@pytest.mark.parametrize("text", [",", " , ,", ",,,"])
def test_a_list_of_nothing_is_refused_on_every_surface(name: str, text: str) -> None:
    """Keys whose variables are empty must not open the server."""
    with pytest.raises(SettingsError, match=name):
        resolve_settings(environ={f"ONESEEK_{name.upper()}": text})
    with pytest.raises(SettingsError, match=name):
        resolve_settings({name: text}, environ={})
    Path("oneseek.yaml").write_text(f"{name}: '{text}'", encoding="utf-8")
    with pytest.raises(SettingsError, match=name):
        resolve_settings(environ={})


def test_every_number_has_an_upper_bound() -> None:
    numbers = {option.path for option in OPTIONS if option.hint in (int, float, Size)}
    inside = {path for path in numbers if "." in path}
    assert numbers - inside == {*LIMITS, "max_bodies_memory"}
    with pytest.raises(SettingsError, match="max_bodies_memory"):
        resolve_settings({"max_bodies_memory": str(10**15)}, environ={})
    for name, (least, most) in LIMITS.items():
        for value in (most + 1, 10**15, least - 1):
            with pytest.raises(SettingsError, match=name):
                resolve_settings({name: str(value)}, environ={})
    for path in inside:
        with pytest.raises(SettingsError, match=path):
            resolve_settings({path: "1e15" if path != "rollout.min_requests" else "100000"}, environ={})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_cpu_adapters", {"max_adapters": 8, "max_cpu_adapters": 4}),
        ("pinned_adapters", {"pinned_adapters": (" ",)}),
    ],
)
def test_places_for_adapters_that_contradict_each_other_are_refused(
    name: str, values: dict[str, typing.Any]
) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)
    assert caught.value.name == name
    assert Settings(max_adapters=8, max_cpu_adapters=8).max_cpu_adapters == 8


def test_a_root_that_is_not_there_is_a_warning_with_setting_and_path(tmp_path: Path) -> None:
    (warning,) = Settings(adapter_roots=("lora_adapters", str(tmp_path), "/not/there")).warnings
    assert warning.startswith("adapter_roots: /not/there ")


@pytest.mark.parametrize("name", ["", "a:b", "a@b", "a=b", "-a", "å"])
def test_a_public_name_that_means_something_else_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="served_model_name"):
        Settings(served_model_name=("ok", name))
