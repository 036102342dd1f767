"""Chooses the base model that answers a request: by name, or by the language of the question."""

from __future__ import annotations

import time
from collections.abc import Sequence

from routing.route import AdapterNames, Route, RouteQuery, Router, UnknownNameError
from routing.selection import first_name
from server.exchange import Exchange
from server.live.bases.deciding import named_base, owner_of, place_of
from server.live.bases.languages import LanguageRouting, ServedNames
from server.metrics.engine_state import Task
from server.serving.generation import READING_BYTES
from server.serving.routes import RememberedRoutes
from server.serving.service import BaseService


class Bases:
    """All base models of a server, with the default base first. `routing` chooses between the languages of
    all bases.
    """

    def __init__(self, services: Sequence[BaseService], routing: LanguageRouting | None = None) -> None:
        self.services = tuple(services)
        self._routing = routing
        self._routes = [RememberedRoutes() for _ in range(len(self.services) + 1)]
        self._names: ServedNames | None = None

    @property
    def several(self) -> bool:
        """True if the server has more than one base."""
        return len(self.services) > 1

    def named(self, *names: str | None) -> BaseService:
        """Return the service of the base that serves the first known name in `names`; if no name is known,
        that of the default base.
        """
        if self.several:
            known = self.names()
            for name in filter(None, names):
                index = place_of(first_name(name), known)
                if index is not None:
                    return self.services[index]
        return self.services[0]

    def names(self) -> ServedNames:
        """Return the current names of all bases and their adapters. The returned object is the same until a
        name changes.
        """
        snapshots = tuple(service.runtime.served.snapshot for service in self.services)
        known = self._names
        if known is None or any(a is not b for a, b in zip(known.snapshots, snapshots, strict=True)):
            routing, first = self._routing, self.services[0].runtime.served
            languages = routing.languages() if routing is not None else first.languages()
            known = self._names = ServedNames(snapshots, languages)
        return known

    async def choose(
        self,
        exchange: Exchange,
        question: RouteQuery,
        task: Task = "generate",
        within: BaseService | None = None,
    ) -> tuple[BaseService, Route | None]:
        """Return the base that answers `question`, and the route that chose it.

        With a single base, returns that base and no route, since the base does its own routing. `within` is
        the base that answers unless the request names another base; use it for a prompt of token ids, which
        have a meaning for one base only. Raises `UnknownNameError` and `SelectionError`.
        """
        if not self.several:
            return self.services[0], None
        exchange.parsed = exchange.parsed or time.perf_counter()
        exchange.requested = question.header or question.model or ""
        try:
            service, route = await self._choose(exchange, question, task, within)
        except UnknownNameError:
            exchange.adapter = "unknown"
            raise
        exchange.base = service.runtime.name
        return service, route

    async def _choose(
        self, exchange: Exchange, question: RouteQuery, task: Task, within: BaseService | None
    ) -> tuple[BaseService, Route]:
        known = self.names()
        index, question = named_base(question, known)
        if index is None and within is not None:
            index = self.services.index(within)
        if index is not None:
            service = self.services[index]
            router = service.runtime.router
            own = known.snapshots[index]
            return service, await self._decide(exchange, question, service, router, own, 1 + index)
        service = self._first_for(task)
        router = self._routing.server if self._routing is not None else service.runtime.router
        route = await self._decide(exchange, question, service, router, known)
        chosen = self.services[owner_of(route, known)]
        if chosen.runtime.info.task == task:
            return chosen, route
        # A language of a base that does something else: the one that does this decides by itself.
        place = self.services.index(service)
        own, router = known.snapshots[place], service.runtime.router
        return service, await self._decide(exchange, question, service, router, own, 1 + place)

    def _first_for(self, task: Task) -> BaseService:
        doing = (service for service in self.services if service.runtime.info.task == task)
        return next(doing, self.services[0])

    async def _decide(
        self,
        exchange: Exchange,
        question: RouteQuery,
        service: BaseService,
        router: Router,
        names: AdapterNames,
        kept: int = 0,
    ) -> Route:
        """Return the router's decision about `question`. Decisions about short questions are kept in the
        cache with the index `kept`.
        """
        began = time.perf_counter()
        routes = self._routes[kept]
        if routes.remembers(question):
            route = routes.decide(exchange.tenant, question, router, names)
        else:
            size = READING_BYTES * sum(map(len, question.turns))
            route = await service.generation.aside.run_sized(size, lambda: router.decide(question, names))
        service.runtime.metrics.route_seconds.observe(time.perf_counter() - began)
        return route
