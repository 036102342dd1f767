"""What several bases take together: known, shown and refused before any of them is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.random_model import DecoderShape, write_model
from server.config.sections import EngineOptions
from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.embedded.launch.bases_memory import BaseLoad, plan_bases
from server.engines.embedded.launch.memory_plan import PROGRAM, token_bytes
from server.engines.embedded.launch.options import EmbeddedOptions
from server.engines.embedded.model.families.lookup import read_model_config
from server.engines.together import PlannedBase, plan_together

MIB = 2**20


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> BaseLoad:
    folder = tmp_path_factory.mktemp("planned")
    write_model(folder, DecoderShape(256, 4, 4, 2, 64, 512, 2000, 2048))
    return BaseLoad(
        name="a",
        config=read_model_config(folder),
        options=EmbeddedOptions(graphs=folder, max_num_seqs=4, max_num_batched_tokens=64),
        adapters=(),
    )


def three(load: BaseLoad, *, on_demand: bool = False) -> list[BaseLoad]:
    return [replace(load, name=name, on_demand=on_demand) for name in ("a", "b", "c")]


def test_what_fits_has_its_keys_and_values_divided(load: BaseLoad) -> None:
    bases = [*three(load)[:2], replace(load, name="c", options=replace(load.options, kv_bytes=8 * MIB))]
    found, kv = plan_bases(bases, None, 4096 * MIB)
    assert found.fits
    assert kv.keys() == {"a", "b"}
    assert kv["a"] == kv["b"]
    assert len(found.lines()) == 4
    own = load.needs(kv["a"], 0).size - PROGRAM
    assert found.size == PROGRAM + 2 * own + bases[2].needs(0, 0).size - PROGRAM


def test_keys_and_values_give_way_first(load: BaseLoad) -> None:
    wide, _ = plan_bases(three(load), None, 4096 * MIB)
    least = 512 * token_bytes(load.config)
    tight, kv = plan_bases(three(load), None, wide.size - 6 * MIB)
    assert tight.size <= wide.size - 6 * MIB
    assert all(size >= least for size in kv.values())


def test_what_does_not_fit_is_shown_base_by_base_with_what_would(load: BaseLoad) -> None:
    one = load.needs(512 * token_bytes(load.config), 0).size - PROGRAM
    with pytest.raises(ValueError, match="quantize int4") as told:
        plan_bases(three(load), None, PROGRAM + 2 * one + one // 2)
    text = str(told.value)
    assert [name for name in ("a ", "b ", "c ") if f"; {name}" in text or f"({name}" in text] == [
        "a ",
        "b ",
        "c ",
    ]
    assert "bases.a.quantize int4" in text
    assert "max_loaded_bases 1" in text
    with pytest.raises(ValueError, match=r"MiB|GiB") as told:
        plan_bases(three(load), None, PROGRAM)
    assert "quantize int" not in str(told.value)
    assert "max_loaded_bases 1" not in str(told.value)


def test_an_on_demand_base_counts_unless_few_may_be_loaded(load: BaseLoad) -> None:
    one = load.needs(512 * token_bytes(load.config), 0).size - PROGRAM
    available = PROGRAM + 2 * one + one // 2
    with pytest.raises(ValueError, match="max_loaded_bases 2"):
        plan_bases(three(load, on_demand=True), None, available)
    found, _ = plan_bases(three(load, on_demand=True), 2, available)
    assert found.fits
    mixed = [replace(base, on_demand=base.name != "a") for base in three(load)]
    found, _ = plan_bases(mixed, 2, available)
    assert found.fits


def on_gpu(name: str, share: str | None, *, on_demand: bool = False) -> PlannedBase:
    options = {"gpu_memory_utilization": share} if share is not None else {}
    settings = Settings(engine=EngineOptions(kind="vllm", options=options))
    return PlannedBase(
        name=name, kind="vllm", path=Path(name), settings=settings, adapters=(), on_demand=on_demand
    )


@pytest.mark.parametrize(
    ("shares", "on_demand", "most", "fits"),
    [
        (("0.4", "0.6"), False, None, True),
        (("0.5", "0.6"), False, None, False),
        ((None, None), False, None, False),
        ((None, "0.1"), False, None, True),
        ((None, None), True, 1, True),
        ((None, None), True, None, False),
    ],
)
def test_two_engines_share_a_gpu_if_their_settings_say_so(
    shares: tuple[str | None, str | None], on_demand: bool, most: int | None, fits: bool
) -> None:
    bases = [on_gpu(name, share, on_demand=on_demand) for name, share in zip("ab", shares, strict=True)]
    lines: list[str] = []
    if fits:
        assert plan_together(bases, most, lines.append) == [base.settings for base in bases]
        return
    with pytest.raises(SettingsError) as told:
        plan_together(bases, most, lines.append)
    assert told.value.name == "bases.b.gpu_memory_utilization"


def test_one_base_alone_is_left_to_its_engine() -> None:
    base = on_gpu("a", "7")
    assert plan_together([base], None, print) == [base.settings]
