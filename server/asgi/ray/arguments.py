"""Arguments of an application on Ray, besides the settings. Does not import Ray."""

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
"""vLLM's options whose product is the number of GPUs of a replica."""
LARGEST_BATCH = 1024
"""Largest batch of vLLM unless it is set; vLLM chooses it by the GPU's memory."""
LOOK_BACK = 30.0
"""Seconds of load that Ray averages at most."""
REPORTS = 3
"""Times that the load is reported to Ray in that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The `args` of an application in Ray Serve's configuration."""

    config: str | None = None
    """Path of `oneseek.yaml` on every node. Default: as `oneseek serve` finds it."""
    min_replicas: int = 1
    """Fewest replicas of the engine."""
    max_replicas: int = 1
    """Maximum number of replicas of the engine."""
    cpus: float = 1.0
    """CPUs that Ray reserves for a replica. The setting `threads` limits how many it computes with."""
    gpus: float = 0.0
    """GPUs of a replica, unless vLLM's options make it span several."""
    upscale_seconds: float = 10.0
    """Add a replica after this many seconds of more work than the replicas have rows for."""
    downscale_seconds: float = 300.0
    """Remove a replica after this many seconds of less work."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise SettingsError(
                "min_replicas",
                f"{self.min_replicas} is out of range; use 1 to max_replicas ({self.max_replicas})",
            )
        for name in ("cpus", "gpus", "upscale_seconds", "downscale_seconds"):
            if getattr(self, name) < 0:
                raise SettingsError(name, f"{getattr(self, name):g} is below 0; use 0 or more")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Arguments:
        """Parse the arguments from Ray's configuration. Raises `SettingsError` for an unknown name or wrong
        type.
        """
        kinds = {one.name: one.type for one in fields(cls)}
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in kinds:
                raise SettingsError(name, f"is not an argument of this application{closest(name, kinds)}")
            values[name] = _read(name, value, str(kinds[name]))
        return cls(**values)


def engine_count(given: Arguments, at_once: int) -> dict[str, Any]:
    """Return the options of a Ray deployment that scale its replicas. `at_once` is the size of a replica's
    batch.

    Ray averages running and waiting requests over the shorter of the delays, and over half a minute at most.
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
    """Return how many requests a replica with `gpus` runs at once, or at most if vLLM decides.

    Raises `SettingsError` if Ray is to scale replicas whose batch only vLLM knows.
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
            "max_num_seqs", "is needed to scale replicas of vLLM: Ray adds one when their batches are full"
        )
    return LARGEST_BATCH


def replica_queue(max_queue: int, at_once: int, most_replicas: int) -> int:
    """Return how many requests a replica queues, so that it can take every request that the ingress admitted.

    `at_once` requests run together on each replica. The ingress alone limits the queue, over all replicas.
    One replica may have to queue what all others ran, if they are lost, and a batch more, because it counts
    an answer for a moment longer than the ingress.
    """
    return min(int(LIMITS["max_queue"][1]), max_queue + at_once * most_replicas)


def reserved_gpus(resources: Mapping[str, Any]) -> float:
    """GPUs that `engine_resources` reserves for a replica."""
    bundles = resources.get("placement_group_bundles", [])
    return resources["ray_actor_options"]["num_gpus"] + sum(bundle["GPU"] for bundle in bundles)


def engine_resources(settings: Settings, given: Arguments) -> dict[str, Any]:
    """Resources that Ray reserves for a replica, as options of a deployment.

    If vLLM spans several GPUs with `distributed_executor_backend: ray`, it gets a placement group with a
    bundle for each GPU, on one machine if they fit. Raises `SettingsError` for several GPUs without that
    option.
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
            f"a replica spans {spans} GPUs; set it to ray, so that Ray places the workers",
        )
    bundle = {"CPU": max(1.0, given.cpus), "GPU": 1.0}
    return {
        "placement_group_bundles": [bundle] * spans,
        "placement_group_strategy": "PACK",
        "ray_actor_options": {"num_cpus": max(1.0, given.cpus), "num_gpus": 0},
    }


def _option(options: Mapping[str, str], name: str, default: object) -> object:
    """Parse one of vLLM's options, whose text is YAML."""
    text = options.get(name)
    try:
        return default if text is None else yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # which vLLM's own check refuses


def _read(name: str, value: object, kind: str) -> object:
    """`value` in the type of its field. `serve run` passes numbers as text."""
    if kind.startswith("str"):
        if value is None or isinstance(value, str):
            return value
        raise SettingsError(name, f"{value!r} is not text")
    read = float if kind == "float" else int
    try:
        if isinstance(value, str):
            return read(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and read(value) == value:
            return read(value)
    except ValueError:
        pass
    raise SettingsError(name, f"{value!r} is not a {'number' if kind == 'float' else 'whole number'}")
