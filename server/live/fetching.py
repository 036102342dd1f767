"""Fetches adapters from URLs that clients send: below the operator's prefixes, one at a time, within limits.

An operator who allows a URL prefix trusts its server. So the IP addresses of its name are not checked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from adapters.errors import FileRefusedError
from adapters.remote.errors import FetchError, FetchFailure, URLRefusedError
from adapters.remote.fetch import Fetch, FetchedAdapter, FetchLimits, fetched
from adapters.remote.pins import check_digest
from adapters.remote.url import AdapterURL, URLPrefixes
from server.errors import ApiError, ErrorReply, bad_field
from server.live.loading import describe_refusal, unwritable

Gone: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""A function that waits until the client has disconnected, and then raises an error."""

_GRACE = 30.0
"""Seconds beyond `fetch_timeout` after which a hanging fetch is abandoned."""
_STATUS: Mapping[FetchFailure, tuple[int, str]] = {
    "missing": (404, "path_not_found"),
    "forbidden": (400, "url_forbidden"),
    "unreachable": (502, "url_unreachable"),
    "timeout": (504, "url_timeout"),
    "too_large": (400, "adapter_too_large"),
    "not_adapter": (400, "adapter_rejected"),
    "mismatch": (400, "digest_mismatch"),
    "extra": (503, "extra_missing"),
    "stopped": (503, "url_timeout"),
}


class AdapterFetching:
    """Fetches adapters from URLs for the clients of one server."""

    def __init__(self, prefixes: URLPrefixes, limits: FetchLimits, home: Path) -> None:
        self._prefixes = prefixes
        self._limits = limits
        self._home = home
        self._turn = asyncio.Semaphore(1)

    @asynccontextmanager
    async def fetch(
        self, text: str, digest: str | None, field: str, gone: Gone
    ) -> AsyncGenerator[FetchedAdapter]:
        """Fetch the adapter at the URL `text` into a temporary folder, which exists during the `with` block.

        `gone` waits for the client's disconnect, which cancels the fetch, but not the block. Raises
        `ApiError`, which names the request's `field`, and what `gone` raises. After an error, no files are
        left.
        """
        fetch = Fetch(url=self._open(text, field), digest=_pin(digest), limits=self._limits)
        stack = ExitStack()
        work = asyncio.create_task(self._fetch(fetch, stack))
        client = asyncio.create_task(gone())
        try:
            try:
                await asyncio.wait(
                    {work, client},
                    timeout=self._limits.seconds + _GRACE,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if client.done() and not work.done():
                    client.result()
                found = await _described(work, fetch.url, field)
            finally:
                client.cancel()
            yield found
        finally:
            fetch.stop.set()
            work.cancel()
            await asyncio.to_thread(stack.close)

    def _open(self, text: str, field: str) -> AdapterURL:
        try:
            return self._prefixes.open(text)
        except URLRefusedError as error:
            raise bad_field(field, f"{field}: {error}.", code="path_refused") from None

    async def _fetch(self, fetch: Fetch, stack: ExitStack) -> FetchedAdapter:
        """Run `fetch` in a thread, after earlier fetches. A thread that hangs delays all later fetches until
        it ends.
        """
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        done = _in_thread(lambda: stack.enter_context(fetched(fetch, self._home)))

        def end(future: asyncio.Future[FetchedAdapter]) -> None:
            self._turn.release()
            if fetch.stop.is_set():
                loop.run_in_executor(None, stack.close)
                future.exception()  # nobody asks for it any more

        done.add_done_callback(end)
        return await asyncio.shield(done)


async def _described(work: asyncio.Task[FetchedAdapter], url: AdapterURL, field: str) -> FetchedAdapter:
    """Return the fetched adapter when `work` is done. Its errors become an `ApiError` for the client."""
    try:
        if not work.done():
            raise FetchError(
                url,
                "timeout",
                "the fetch took too long",
                "Retry later, use a faster host, or raise the server's setting fetch_timeout.",
            )
        return work.result()
    except FetchError as error:
        status, code = _STATUS[error.failure]
        kind = "server_error" if status >= 500 else "invalid_request_error"
        reply = ErrorReply(
            status, f"{field}: {error}", kind, field, code, headers={"x-should-retry": "false"}
        )
        raise ApiError(reply) from None
    except FileRefusedError as error:
        raise describe_refusal(error, field) from None
    except OSError as error:
        raise unwritable(error) from None


def _pin(digest: str | None) -> str | None:
    try:
        return check_digest(digest) if digest is not None else None
    except ValueError as error:
        raise bad_field("digest", f"digest: {error}.", code="invalid_value") from None


def _in_thread(work: Callable[[], FetchedAdapter]) -> asyncio.Future[FetchedAdapter]:
    """Run `work` in a daemon thread, so that a fetch that hangs does not keep the process from exiting."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[FetchedAdapter] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            settle(future.set_exception, error)
        else:
            settle(future.set_result, result)

    def settle(put: Callable[[Any], None], value: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(put, value)

    threading.Thread(target=run, name="oneseek-fetch", daemon=True).start()
    return future
