"""Holds the parts of one answer that were generated, until the HTTP side reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from server.engines.shared.unread import Unread
from server.errors import EngineError, UnreadAnswerError

Item = TypeVar("Item")


class ReaderQueue(Generic[Item]):
    """A queue of items, oldest first, and the error that ends it.

    Use it on the event loop only. `unread` counts the bytes of all items but the oldest, by `size`, as those
    of `holder`.
    """

    __slots__ = ("_error", "_holder", "_size", "_unread", "_waiter", "items")

    def __init__(self, holder: Any, unread: Unread[Any], size: Callable[[Item], int]) -> None:
        self._holder = holder
        self._unread = unread
        self._size = size
        self.items: deque[Item] = deque()
        """To look at: `put` and `take` change it. No call, since it is looked at for every token."""
        self._error: EngineError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Item) -> None:
        """Add an item; those after an error are dropped."""
        if self._error is not None:
            return
        self.items.append(item)
        if len(self.items) > 1:
            self._unread.add(self._holder, self._size(item))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def take(self) -> Item:
        """Remove the oldest item and return it."""
        item = self.items.popleft()
        if self.items:
            self._unread.take(self._holder, self._size(self.items[0]))
        return item

    def fail(self, error: EngineError) -> None:
        """End the queue with `error`, after the items in it. Only the first error counts."""
        if self._error is None:
            self._error = error
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def drop(self) -> None:
        """End the queue because the client does not read it, and drop its items."""
        self.discard()
        self.fail(UnreadAnswerError("The answer was not read as fast as it was written, and has been ended."))

    def discard(self) -> None:
        """Drop all items that wait. Idempotent."""
        self.items.clear()
        self._unread.forget(self._holder)

    async def wait(self) -> None:
        """Return once an item is there. Raises the error if there is none and none will come."""
        while not self.items:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
