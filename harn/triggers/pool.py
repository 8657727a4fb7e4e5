"""
Shared objects of generations, by key, with reference counts.

Carrying over unchanged parts, keeping the live interpreter, going back from B to A, and undo are one mechanism: acquire
and release. An object is closed when its last reference is released.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

T = TypeVar("T")
log = Logger(namespace="harn.triggers")


class Shared(Generic[T]):
    """One object with the number of its references. Its maker holds the first."""

    __slots__ = ("_count", "_pool", "key", "value")

    def __init__(self, pool: KeyedPool[T], key: Hashable, value: T) -> None:
        self._pool = pool
        self._count = 1
        self.key = key
        self.value = value

    @property
    def holders(self) -> int:
        """Number of references."""
        return self._count

    def retain(self, count: int = 1) -> Shared[T]:
        """Add a reference, or so many."""
        self._count += count
        return self

    def withdraw(self) -> None:
        """Return it to no further caller; existing references stay valid."""
        self._pool._take_out(self)

    def release(self) -> None:
        """Release a reference; the last one closes the object, in the background."""
        self._count -= 1
        if self._count == 0:
            self._pool._last_left(self)


class KeyedPool(ABC, Generic[T]):
    """All objects of one sort, by key; each sort has its own subclass, which closes them."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, list[Shared[T]]] = {}
        self._closing: set[Deferred[object]] = set()

    @abstractmethod
    async def close(self, value: T) -> None:
        """Close an object; called once for each, when its last reference is released."""

    def __iter__(self) -> Iterator[Shared[T]]:
        return iter([entry for entries in self._entries.values() for entry in entries])

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def acquire(self, key: Hashable) -> Shared[T] | None:
        """Add a reference to the object of this key, if there is one."""
        entries = self._entries.get(key)
        return entries[-1].retain() if entries else None

    def add(self, key: Hashable, value: T) -> Shared[T]:
        """
        Add a new object, with one reference.

        An earlier object of the same key keeps its references, and is found again when the new one is closed before it.
        """
        entry = Shared(self, key, value)
        self._entries.setdefault(key, []).append(entry)
        return entry

    def _take_out(self, entry: Shared[T]) -> None:
        entries = self._entries.get(entry.key, [])
        if entry in entries:
            entries.remove(entry)
            if not entries:
                del self._entries[entry.key]

    def _last_left(self, entry: Shared[T]) -> None:
        self._take_out(entry)

        closing: Deferred[object] = Deferred.fromCoroutine(self.close(entry.value))
        closing.addErrback(lambda failure: log.failure("closing failed", failure=failure))
        if not closing.called:
            self._closing.add(closing)
            closing.addBoth(self._closed, closing)

    def _closed(self, result: object, closing: Deferred[object]) -> object:
        self._closing.discard(closing)
        return result

    def idle(self) -> Deferred[None]:
        """Return a Deferred that fires when every object released so far is closed."""
        waiting = DeferredList([_echo(closing) for closing in self._closing])
        return waiting.addCallback(lambda _: None)


def _echo(source: Deferred[object]) -> Deferred[object]:
    """Return a Deferred that fires with ``source``, without consuming its result."""
    echo: Deferred[object] = Deferred()

    def both(result: object) -> object:
        echo.callback(None)
        return result

    source.addBoth(both)
    return echo
