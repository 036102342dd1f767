"""What an application on Ray is started with."""

from __future__ import annotations

from typing import Any

import pytest

from server.asgi.ray.arguments import (
    LARGEST_BATCH,
    Arguments,
    batch_size,
    engine_count,
    engine_resources,
    reserved_gpus,
)
from server.config.sections import EngineOptions
from server.config.settings import Settings
from server.config.values import SettingsError
from server.serving.service import DEFAULT_BATCH

ONE = {"ray_actor_options": {"num_cpus": 1.0, "num_gpus": 0.0}}


def spanning(**options: str) -> Settings:
    return Settings(engine=EngineOptions(kind="vllm", options=options))


def test_numbers_and_a_path_are_taken_as_rays_configuration_has_them() -> None:
    given = Arguments.parse(
        {"config": "/etc/oneseek.yaml", "min_replicas": 2, "max_replicas": 4, "gpus": 0.5}
    )
    assert given == Arguments(config="/etc/oneseek.yaml", min_replicas=2, max_replicas=4, gpus=0.5)


def test_text_is_read_as_serve_run_passes_it() -> None:
    given = Arguments.parse({"min_replicas": "2", "max_replicas": "3", "cpus": "1.5"})
    assert given == Arguments(min_replicas=2, max_replicas=3, cpus=1.5)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"replicas": 2}, "replicas"),
        ({"min_replicas": "two"}, "min_replicas"),
        ({"min_replicas": 1.5}, "min_replicas"),
        ({"min_replicas": True}, "min_replicas"),
        ({"min_replicas": 0}, "min_replicas"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas"),
        ({"config": 1}, "config"),
        ({"gpus": -1}, "gpus"),
        ({"upscale_seconds": -1}, "upscale_seconds"),
        ({"downscale_seconds": "soon"}, "downscale_seconds"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(given: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Arguments.parse(given)
    assert caught.value.name == name


def test_a_fixed_number_of_replicas_is_not_scaled() -> None:
    assert engine_count(Arguments(min_replicas=2, max_replicas=2), 8) == {"num_replicas": 2}


@pytest.mark.parametrize(
    ("up", "down", "window"), [(10, 300, 10.0), (60, 300, 30.0), (5, 2, 2.0), (0, 0, 1.0)]
)
def test_replicas_are_scaled_by_full_batches(up: float, down: float, window: float) -> None:
    given = Arguments(max_replicas=4, upscale_seconds=up, downscale_seconds=down)
    (config,) = engine_count(given, 8).values()
    assert (config["min_replicas"], config["max_replicas"]) == (1, 4)
    assert config["target_ongoing_requests"] == 8
    assert (config["upscale_delay_s"], config["downscale_delay_s"]) == (up, down)
    assert config["look_back_period_s"] == window
    assert 0 < config["metrics_interval_s"] < window


def test_a_replica_of_one_gpu_or_none_is_a_plain_actor() -> None:
    assert engine_resources(Settings(), Arguments()) == ONE
    assert engine_resources(spanning(tensor_parallel_size="1"), Arguments(gpus=1))["ray_actor_options"] == {
        "num_cpus": 1.0,
        "num_gpus": 1,
    }


def test_a_replica_that_spans_gpus_gets_a_bundle_for_each() -> None:
    for backend in ("ray", '"ray"'):  # as a flag has it, and as the file does
        settings = spanning(
            tensor_parallel_size="4", pipeline_parallel_size="2", distributed_executor_backend=backend
        )
        found = engine_resources(settings, Arguments())
        assert found["placement_group_bundles"] == [{"CPU": 1.0, "GPU": 1.0}] * 8
        assert found["ray_actor_options"]["num_gpus"] == 0
        assert reserved_gpus(found) == 8


@pytest.mark.parametrize(
    "options",
    [{"tensor_parallel_size": "2"}, {"tensor_parallel_size": "two"}, {"pipeline_parallel_size": "0"}],
)
def test_a_span_that_ray_would_not_place_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        engine_resources(spanning(**options), Arguments())


def test_a_batch_is_what_the_settings_say_or_the_engines_own() -> None:
    for options, settings in (({}, Settings(max_num_seqs=8)), ({"max_num_seqs": "8"}, None)):
        assert batch_size(settings or spanning(**options), Arguments(max_replicas=4), 1) == 8
    assert batch_size(Settings(), Arguments(max_replicas=4), 0) == DEFAULT_BATCH
    assert batch_size(spanning(), Arguments(), 1) == LARGEST_BATCH
    assert batch_size(Settings(), Arguments(gpus=1), 1) == LARGEST_BATCH


def test_replicas_whose_batch_only_vllm_knows_are_not_scaled() -> None:
    with pytest.raises(SettingsError) as caught:
        batch_size(spanning(), Arguments(max_replicas=4), 1)
    assert caught.value.name == "max_num_seqs"
