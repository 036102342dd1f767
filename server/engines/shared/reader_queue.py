"""Buffers the generated parts of one answer until the HTTP code reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from server.engines.shared.unread import Unread
from server.errors import EngineError, UnreadAnswerError

Item = TypeVar("Item")


class ReaderQueue(Generic[Item]):
    """A queue of items for one reader, oldest first, and the error that ends it.

    `unread` counts the memory of all items but the oldest: `size` returns the bytes of an item, and `holder`
    is the answer that they count for. Use it on the event loop only.
    """

    __slots__ = ("_error", "_holder", "_size", "_unread", "_waiter", "items")

    def __init__(self, holder: Any, unread: Unread[Any], size: Callable[[Item], int]) -> None:
        self._holder = holder
        self._unread = unread
        self._size = size
        self.items: deque[Item] = deque()
        """Items that nobody has read yet, oldest first. Only `put` and `take` may change it. It is a
        plain attribute and not a property, since it is read for every token.
        """
        self._error: EngineError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Item) -> None:
        """Append an item. An item that comes after an error is dropped."""
        if self._error is not None:
            return
        self.items.append(item)
        if len(self.items) > 1:
            self._unread.add(self._holder, self._size(item))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def take(self) -> Item:
        """Remove the oldest item from the queue, and return it."""
        item = self.items.popleft()
        if self.items:
            self._unread.take(self._holder, self._size(self.items[0]))
        return item

    def fail(self, error: EngineError) -> None:
        """End the queue: `wait` raises `error` once all items are read. Further errors are ignored."""
        if self._error is None:
            self._error = error
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def drop(self) -> None:
        """Drop all items, and end the queue with `UnreadAnswerError`, because the client does not read the
        answer.
        """
        self.discard()
        self.fail(
            UnreadAnswerError(
                "The client read the answer too slowly, so the server ended the answer. "
                "Read faster, or request fewer tokens."
            )
        )

    def discard(self) -> None:
        """Drop all items that are not read yet. Idempotent."""
        self.items.clear()
        self._unread.forget(self._holder)

    async def wait(self) -> None:
        """Wait until the queue has an item. Raises the error that ended the queue if it has no more items."""
        while not self.items:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
