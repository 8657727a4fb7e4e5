"""
Objects that generations share, by key, with reference counts.

A generation acquires the objects of its keys and releases them at its end. So an unchanged object is kept by a reload,
by a reload that fails, and by one that goes back to earlier settings. An object is closed when its last reference is
released.
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
    """
    One object with the number of its references. The caller that added it holds the first.

    :ivar key: the key of the object in its pool.
    :ivar value: the object.
    """

    __slots__ = ("_count", "_pool", "key", "value")

    def __init__(self, pool: KeyedPool[T], key: Hashable, value: T) -> None:
        self._pool = pool
        self._count = 1
        self.key = key
        self.value = value

    @property
    def holders(self) -> int:
        """Return the number of references."""
        return self._count

    def retain(self, count: int = 1) -> Shared[T]:
        """Add ``count`` references."""
        self._count += count
        return self

    def withdraw(self) -> None:
        """Remove the object from the pool, so that `KeyedPool.acquire` no longer finds it; references stay valid."""
        self._pool._take_out(self)

    def release(self) -> None:
        """Release a reference. After the last one, the object is closed in the background."""
        self._count -= 1
        if self._count == 0:
            self._pool._last_left(self)


class KeyedPool(ABC, Generic[T]):
    """All shared objects of one sort, by key. A subclass for each sort says how they are closed."""

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
        """Return the object of a key with one more reference; None if there is none."""
        entries = self._entries.get(key)
        return entries[-1].retain() if entries else None

    def add(self, key: Hashable, value: T) -> Shared[T]:
        """
        Add a new object, with one reference.

        An earlier object of the same key keeps its references. If the new one is closed first, `acquire` returns the
        earlier one again.
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
    """Return a Deferred that fires with None when ``source`` fires, and leaves the result of ``source`` as it is."""
    echo: Deferred[object] = Deferred()

    def both(result: object) -> object:
        echo.callback(None)
        return result

    source.addBoth(both)
    return echo
