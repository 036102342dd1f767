"""`bases:` on every surface: what each takes, and what is refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.each_base import default_settings, each_base
from server.config.settings import OPTIONS, ResolvedSettings, resolve_settings
from server.config.values import Raw, SettingsError

FILE = """
bases:
  mistral: {path: models/mistral, quantize: int4, engine: {kind: vllm, gpu_memory_utilization: 0.4}}
  gpt-sw3: {path: ~/gpt-sw3, engine: embedded, on_demand: true, kv_cache_memory: 1GiB, threads: 2}
  third: models/third
default_base: GPT-SW3
threads: 1
engine: {kind: embedded}
"""


def resolve(tmp_path: Path, text: str = "", **environ: str) -> ResolvedSettings:
    file = tmp_path / "oneseek.yaml"
    file.write_text(text)
    return resolve_settings({}, {"HOME": "/home/me"} | environ, config=file)


def test_each_base_has_its_own_settings_and_else_the_servers(tmp_path: Path) -> None:
    settings = resolve(tmp_path, FILE).settings
    bases = {base.name: base for base in each_base(settings)}
    assert list(bases) == ["gpt-sw3", "mistral", "third"]
    first = bases["gpt-sw3"]
    assert first.on_demand
    assert default_settings(settings) == first.settings
    assert first.settings.base_model == Path("/home/me/gpt-sw3")
    assert (first.settings.threads, first.settings.kv_cache_memory) == (2, 2**30)
    mistral = bases["mistral"].settings
    assert (mistral.threads, mistral.quantize, mistral.engine.kind) == (1, "int4", "vllm")
    assert mistral.engine.options == {"gpu_memory_utilization": "0.4"}
    assert (bases["third"].settings.quantize, bases["third"].settings.bases) == ("none", {})


def test_without_bases_there_is_the_one_that_is_found(tmp_path: Path) -> None:
    settings = resolve(tmp_path, "base_model: models/one\n").settings
    (base,) = each_base(settings)
    assert (base.name, base.settings) == (None, settings)


@pytest.mark.parametrize(
    "text", ["a=/x,b=/y", "{a: /x, b: {path: /y, threads: 3}}", "a=/x, b={path: '/y', threads: 3}"]
)
def test_the_environment_and_flags(tmp_path: Path, text: str) -> None:
    assert list(resolve(tmp_path, FILE, ONESEEK_BASES=text, ONESEEK_DEFAULT_BASE="b").settings.bases) == [
        "a",
        "b",
    ]
    flags: dict[str, Raw] = {"bases": ["a=/x", "b={path: /y, quantize: int8}"]}
    resolved = resolve_settings(flags, {"ONESEEK_BASES": text})
    assert resolved.settings.bases["b"].quantize == "int8"
    (option,) = (option for option in OPTIONS if option.path == "bases")
    assert (option.flag, resolved.origins["bases"]) == ("--base", "flag --base")
    assert "int8" in option.render(resolved.value(option))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('a={path: "/x,}y", threads: 2},b=/y', ["/x,}y", "/y"]),
        ("a={path: /x, adapters: [one=/1, two=/2]},b={path: /y}", ["/x", "/y"]),
        ("a=/x[1,b=/y", ["/x[1", "/y"]),
        ("a=/x]},b=/y,", ["/x]}", "/y"]),
    ],
)
def test_commas_in_brackets_belong_to_the_value(text: str, names: list[str]) -> None:
    bases = resolve_settings({"bases": text}, {}).settings.bases
    assert [str(base.path) for base in bases.values()] == [str(Path(name)) for name in names]


def test_an_option_of_vllm_may_be_a_json_object() -> None:
    text = 'speculative_config={"method": "ngram", "prompt_lookup_max": 4},tensor_parallel_size=2'
    options = resolve_settings({"engine.options": text}, {}).settings.engine.options
    assert options == {
        "speculative_config": '{"method": "ngram", "prompt_lookup_max": 4}',
        "tensor_parallel_size": "2",
    }


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("bases: {a: {path: /x, quantise: int4}}", "bases.a.quantise", "'quantize'"),
        ("bases: {a: {path: /x, port: 1}}", "bases.a.port", "setting"),
        ("bases: {a: {path: /x, quantize: int5}}", "bases.a.quantize", "int4"),
        ("bases: {a: {path: /x, threads: 0}}", "bases.a.threads", "0"),
        ("bases: {a: {path: /x, engine: {kind: embeded}}}", "bases.a.engine", "embedded"),
        ("bases: {a: {threads: 1}}", "bases.a.path", "missing"),
        ("bases: {a: }", "bases.a.path", "missing"),
        ("bases: {a: /x, A: /y}", "bases", "'A'"),
        ("bases: {a: /x, a: /y}", "a", "twice"),
        ("bases: {oneseek: /x}", "bases", "the base's name 'oneseek' is reserved: choose a name other than"),
        ("bases: {'a:b': /x}", "bases", "'a:b' is not a base's name"),
        ("bases: {con: /x}", "bases", "choose another name"),
        ("bases: [a, b]", "bases", "key: value"),
        ("bases: {a: /x}\nbase_model: /y", "base_model", "bases"),
        ("bases: {a: /x}\nserved_model_name: [b]", "served_model_name", "bases"),
        ("bases: {a: /x}\ndefault_base: b", "default_base", "'b'"),
        ("default_base: b", "default_base", "bases"),
        ("max_loaded_bases: 2", "max_loaded_bases", "bases"),
        ("bases: {a: /x, b: /y}\nmax_loaded_bases: 1", "max_loaded_bases", "1"),
        ("bases: {a: /x, b: {path: /y, on_demand: true}}\nmax_loaded_bases: 1", "max_loaded_bases", "room"),
        ("bases: {a: {path: /x, gpu_memory_utilization: 1.5}}", "bases.a.gpu_memory_utilization", "1.5"),
        (
            "bases: {a: {path: /x, max_num_seqs: 4, max_num_batched_tokens: 2}}",
            "bases.a.max_num_batched_tokens",
            "max_num_seqs",
        ),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, text: str, name: str, problem: str) -> None:
    with pytest.raises(SettingsError) as told:
        resolve(tmp_path, text)
    assert told.value.name == name
    assert problem in told.value.problem
    assert "oneseek.yaml" in str(told.value.origin)


@pytest.mark.parametrize("text", ["a", "a=", "=x", "a=/x,a=/y", "{a: ", ","])
def test_text_that_names_no_bases_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as told:
        resolve(tmp_path, "", ONESEEK_BASES=text)
    assert (told.value.name, told.value.origin) == ("bases", "ONESEEK_BASES")
