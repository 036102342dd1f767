"""Arguments of OneSeek's application on Ray Serve, in addition to the settings. Does not import Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import yaml

from server.config.limits import LIMITS
from server.config.settings import Settings
from server.config.values import SettingsError, closest
from server.engines.kinds import AUTO, ENGINES
from server.serving.service import DEFAULT_BATCH

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")
"""Options of vLLM whose product is the number of GPUs that one replica needs."""
LARGEST_BATCH = 1024
"""Largest batch that vLLM may choose, by the GPU's memory, if the settings do not set `max_num_seqs`."""
LOOK_BACK = 30.0
"""Maximum seconds over which Ray averages the load to decide on the number of replicas."""
REPORTS = 3
"""Number of times that the load is reported to Ray within the time over which Ray averages it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The `args` of OneSeek's application in Ray Serve's configuration."""

    config: str | None = None
    """Path of `oneseek.yaml`, the same on every node. Default: found in the same way as by `oneseek
    serve`.
    """
    min_replicas: int = 1
    """Minimum number of replicas of the engine."""
    max_replicas: int = 1
    """Maximum number of replicas of the engine."""
    cpus: float = 1.0
    """Number of CPUs that Ray reserves for a replica. The setting `threads` limits how many the engine
    uses.
    """
    gpus: float = 0.0
    """Number of GPUs that Ray reserves for a replica, unless vLLM's options make it span several."""
    upscale_seconds: float = 10.0
    """Seconds for which there must be more requests than the replicas' batches hold before Ray adds a
    replica.
    """
    downscale_seconds: float = 300.0
    """Seconds for which there must be fewer requests than the replicas' batches hold before Ray removes a
    replica.
    """

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise SettingsError(
                "min_replicas",
                f"{self.min_replicas} is out of range; use 1 to max_replicas, which is {self.max_replicas}",
            )
        for name in ("cpus", "gpus", "upscale_seconds", "downscale_seconds"):
            if getattr(self, name) < 0:
                raise SettingsError(name, f"{getattr(self, name):g} is negative; use 0 or more")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Arguments:
        """Parse the arguments from Ray's configuration. Raises `SettingsError` for an unknown name or wrong
        type.
        """
        kinds = {one.name: one.type for one in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in kinds:
                raise SettingsError(
                    name, f"OneSeek's application on Ray has no such argument{closest(name, kinds)}"
                )
            values[name] = _read(name, value, str(kinds[name]))
        return cls(**values)


def engine_count(given: Arguments, at_once: int) -> dict[str, Any]:
    """Return the options of a Ray deployment that scale its replicas. `at_once` is the size of a replica's
    batch.

    Ray averages the number of running and waiting requests over the shorter of `upscale_seconds` and
    `downscale_seconds`, but over at least 1 and at most `LOOK_BACK` seconds.
    """
    if given.min_replicas == given.max_replicas:
        return {"num_replicas": given.max_replicas}
    window = min(LOOK_BACK, max(1.0, min(given.upscale_seconds, given.downscale_seconds)))
    return {
        "autoscaling_config": {
            "min_replicas": given.min_replicas,
            "max_replicas": given.max_replicas,
            # Past a full batch for each replica there is work for another.
            "target_ongoing_requests": at_once,
            "upscale_delay_s": given.upscale_seconds,
            "downscale_delay_s": given.downscale_seconds,
            "look_back_period_s": window,
            "metrics_interval_s": window / REPORTS,
        }
    }


def batch_size(settings: Settings, given: Arguments, gpus: float) -> int:
    """Return how many requests a replica with `gpus` GPUs runs at once: the setting `max_num_seqs` or the
    embedded engine's default. If vLLM chooses the number, return its maximum, `LARGEST_BATCH`.

    Raises `SettingsError` if the number of replicas may change but only vLLM would know their batch size.
    """
    options = settings.engine.options
    size = _option(options, "max_num_seqs", settings.max_num_seqs)
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    name = settings.engine.kind
    # Without a GPU, `auto` takes the engine that suits every machine.
    if not (gpus > 0 if name == AUTO else ENGINES[name].chooses_batch):
        return DEFAULT_BATCH
    if given.min_replicas != given.max_replicas:
        raise SettingsError(
            "max_num_seqs",
            "the setting is missing, but min_replicas and max_replicas differ; set it, so that Ray knows "
            "when the batches of vLLM's replicas are full",
        )
    return LARGEST_BATCH


def replica_queue(max_queue: int, at_once: int, most_replicas: int) -> int:
    """Return how many requests a replica queues, so that it can take every request that the ingress admitted.

    `at_once` requests run together on each replica. The ingress alone limits the queue, over all replicas. If
    all other replicas are lost, the last one must queue the requests that they ran. The queue has room for
    one batch more, because a replica counts a finished request as running for a moment longer than the
    ingress does.
    """
    return min(int(LIMITS["max_queue"][1]), max_queue + at_once * most_replicas)


def reserved_gpus(resources: Mapping[str, Any]) -> float:
    """Return the number of GPUs per replica in `resources`, which `engine_resources` has made."""
    bundles = resources.get("placement_group_bundles", [])
    return resources["ray_actor_options"]["num_gpus"] + sum(bundle["GPU"] for bundle in bundles)


def engine_resources(settings: Settings, given: Arguments) -> dict[str, Any]:
    """Return the resources that Ray reserves for a replica, as options of a deployment.

    If vLLM spans several GPUs with `distributed_executor_backend: ray`, the replica gets a placement group
    with a bundle for each GPU, on one machine if they fit. Raises `SettingsError` for several GPUs without
    that option.
    """
    spans = 1
    options = settings.engine.options
    for name in PARALLEL:
        size = _option(options, name, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise SettingsError(f"engine.{name}", f"{size!r} is invalid; use a whole number of at least 1")
        spans *= size
    if spans == 1:
        return {"ray_actor_options": {"num_cpus": given.cpus, "num_gpus": given.gpus}}
    if _option(options, "distributed_executor_backend", None) != "ray":
        raise SettingsError(
            "engine.distributed_executor_backend",
            f"a replica spans {spans} GPUs; set this option to ray, so that Ray places vLLM's workers",
        )
    bundle = {"CPU": max(1.0, given.cpus), "GPU": 1.0}
    return {
        "placement_group_bundles": [bundle] * spans,
        "placement_group_strategy": "PACK",
        "ray_actor_options": {"num_cpus": max(1.0, given.cpus), "num_gpus": 0},
    }


def _option(options: Mapping[str, str], name: str, default: object) -> object:
    """Parse the value of one of vLLM's options, whose text is YAML; return `default` if it is not set."""
    text = options.get(name)
    try:
        return default if text is None else yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # which vLLM's own check refuses


def _read(name: str, value: object, kind: str) -> object:
    """Convert `value` to the type `kind` of the argument `name`. `serve run` passes numbers as text."""
    if kind.startswith("str"):
        if value is None or isinstance(value, str):
            return value
        raise SettingsError(name, f"{value!r} is not a text; put it in quotes")
    read = float if kind == "float" else int
    try:
        if isinstance(value, str):
            return read(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and read(value) == value:
            return read(value)
    except ValueError:
        pass
    raise SettingsError(name, f"{value!r} is not a {'number' if kind == 'float' else 'whole number'}")
