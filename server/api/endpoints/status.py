"""Endpoints about the server itself (health, version, metrics), for probes, dashboards and people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.lora.manifest import Adapter
from server.api.endpoints.context import Context, reply
from server.api.rendering.error_replies import NOT_READY_RETRY
from server.config.version import oneseek_version
from server.exchange import EXCHANGE, Exchange
from server.live.runtime import Runtime
from server.metrics.engine_state import DeviceInfo, EngineState
from server.metrics.exposition import scrape


class Status:
    """Handlers of the health, version and metrics endpoints."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def live(self, _request: Request) -> Response:
        """Answer a liveness probe: status 200 if the process answers."""
        return reply({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        """Answer with the server's readiness: 200 if it serves requests, else 503.

        A damaged adapter version affects requests for its own name only, so it does not make the server
        unready.
        """
        ready = self._is_ready()
        return _verdict(ready, {"status": "ready" if ready else "not ready"})

    async def health(self, request: Request) -> Response:
        """Answer with the server's health. If API keys are set, a request without a valid key gets only the
        status.
        """
        ready = self._is_ready()
        body: dict[str, Any] = {"status": "ok" if ready else "unhealthy"}
        exchange: Exchange = request.scope[EXCHANGE]
        if exchange.authenticated:
            services = self._context.services
            states = [service.runtime.engine.state() for service in services]
            info = services[0].runtime.info
            body |= {
                "version": oneseek_version(),
                "engine": info.name,
                **_device(info.device),
                "base": {"name": services[0].runtime.name, "digest": info.base_digest},
                "bases": [
                    _base(service.runtime, state) for service, state in zip(services, states, strict=True)
                ],
                "adapters": [
                    _adapter(adapter, state, service.changes.follower.damaged if service.changes else {})
                    | ({"base_name": service.runtime.name} if len(services) > 1 else {})
                    for service, state in zip(services, states, strict=True)
                    for adapter in service.runtime.served.adapters()
                ],
                "rollouts": [
                    trial | ({"base_name": service.runtime.name} if len(services) > 1 else {})
                    for service in services
                    for trial in service.rollouts.to_json()
                ],
                "queue": {
                    "running": sum(sum(state.running.values()) for state in states),
                    "waiting": sum(sum(state.waiting.values()) for state in states),
                    "limit": self._context.settings.max_queue,
                },
                "uptime": round(time.monotonic() - self._context.began, 1),
            }
        return _verdict(ready, body)

    async def version(self, _request: Request) -> Response:
        """Answer with the server's version, its engine and the digest of each base; with status 503 if a base
        is not ready.
        """
        info = self._context.services[0].runtime.info
        body: dict[str, Any] = {
            "version": oneseek_version(),
            "engine": info.name,
            "base_digest": info.base_digest,
        }
        if len(self._context.services) > 1:
            runtimes = [service.runtime for service in self._context.services]
            body["bases"] = {runtime.name: runtime.info.base_digest for runtime in runtimes}
        return _verdict(self._is_ready(), body)

    async def metrics(self, request: Request) -> Response:
        """Answer with all metrics, in Prometheus text format or OpenMetrics, whichever the scraper
        requests.
        """
        accept = request.headers.get("accept", "")
        # Thousands of series take some milliseconds, for which no stream should wait.
        body, content_type = await asyncio.to_thread(scrape, self._context.metrics.exposed, accept)
        return Response(body, headers={"content-type": content_type})

    def _is_ready(self) -> bool:
        """Return True if the engine of every base is ready."""
        return all(service.runtime.engine.state().ready for service in self._context.services)


def _base(runtime: Runtime, state: EngineState) -> dict[str, Any]:
    """Describe one base model for `/health`. A base that is loaded on demand counts as ready even while it is
    not loaded.
    """
    demand = runtime.on_demand
    return {
        "name": runtime.name,
        "digest": runtime.info.base_digest,
        "engine": runtime.info.name,
        **_device(runtime.info.device),
        "state": demand.phase if demand is not None else "loaded",
        "on_demand": demand is not None,
        "problem": demand.problem if demand is not None else None,
        "ready": state.ready,
        "queue": {"running": sum(state.running.values()), "waiting": sum(state.waiting.values())},
    }


def _adapter(adapter: Adapter, state: EngineState, damaged: Mapping[str, str]) -> dict[str, Any]:
    """Describe an adapter version for `/health`. `damaged` maps versions whose files are damaged, and which
    are served from memory only, to the problem.
    """
    return {
        "name": adapter.full_name,
        "digest": adapter.digest or None,
        "tier": state.resident.get(adapter.digest),
        "base": "verified" if adapter.base_digest is not None else "unverified",
        "problem": adapter.problem or damaged.get(adapter.full_name.lower()),
    }


def _device(device: DeviceInfo | None) -> dict[str, Any]:
    """Describe the device that a base runs on, with the reason if the CPU replaces another device."""
    if device is None:
        return {}
    fallback = device.fallback
    return {
        "device": {"name": device.name, "provider": device.provider, "precision": device.precision},
        "device_fallback": fallback and {"device": fallback.device, "reason": fallback.message},
    }


def _verdict(good: bool, body: dict[str, Any]) -> Response:
    headers = {} if good else {"Retry-After": str(NOT_READY_RETRY)}
    return Response(
        msgspec.json.encode(body), 200 if good else 503, headers=headers, media_type="application/json"
    )
