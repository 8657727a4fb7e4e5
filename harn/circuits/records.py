"""
Circuits in the store, the same for all servers on it: those that are open, the failures of the others, and the probe.

A failure is counted in the turn of the reactor in which its settlement is written, and so with the same commit. The
probe of an open circuit is that of the server which moves its time in the store: one of them all can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.errors import EventLogUnavailable
from harn.store.checkpoints import ICheckpoints
from harn.store.holds import CIRCUITS, OpenRecord, read_circuits

log = Logger(namespace="harn.circuits")

FAILED = CIRCUITS + "/failed/"
"""Names of the records of failures begin so; the trigger's id follows. Each has the ids of the failed deliveries."""
IMPLAUSIBLE = 2.0
"""An open circuit whose time is more than so many times its ``reset`` ahead was written by a clock that was wrong."""
TRIES = 5
"""So often a claim is tried again because another circuit's record has changed meanwhile."""

T = TypeVar("T")


class ICircuits(Protocol):
    """The part of `harn.circuits.service.Circuits` that its records call."""

    def found(self, trigger_id: str, record: OpenRecord | None, failed: frozenset[int]) -> None:
        """Called with the id of a trigger, its record if its circuit is open, and its failed deliveries."""


class CircuitRecords:
    """
    Reads and writes the records of circuits.

    :param is_shared: other servers may use the store: failures are counted there, and probes are claimed.
    """

    def __init__(self, checkpoints: ICheckpoints, *, is_shared: bool = False) -> None:
        self._checkpoints = checkpoints
        self.is_shared = is_shared
        self._is_closed = self._is_following = self._is_outdated = False
        self._serial = 0
        self._written: dict[str, int] = {}
        self._writing: Counter[str] = Counter()
        self._circuits: ICircuits | None = None
        self._known: Collection[str] = ()

    def close(self) -> None:
        """Write nothing more: another program has the circuits from now on."""
        self._is_closed = True

    async def read(self) -> tuple[Mapping[str, OpenRecord], Mapping[str, frozenset[int]]]:
        """
        Return the open circuits, and the failed deliveries of the others, by trigger id.

        :raises EventLogUnavailable: they cannot be read.
        """
        found = dict(await self._checkpoints.beginning(CIRCUITS))
        failed = {name[len(FAILED) :]: _ids(each) for name, each in found.items() if name.startswith(FAILED)}
        return read_circuits(found.get(CIRCUITS)), failed

    def save(self, trigger_id: str, record: OpenRecord | None) -> None:
        """Record a circuit that has opened; None: that it has closed."""
        if not self._is_closed:
            saving = self._checkpoints.amend(CIRCUITS, {trigger_id: msgspec.to_builtins(record)})
            self._write(trigger_id, saving).addErrback(
                _warn, "the state of the circuits could not be written, so that a restart closes them: {why}"
            )

    def count(self, trigger_id: str, delivery_id: int) -> Deferred[frozenset[int]]:
        """Add a delivery to those that have failed, on any server; return them all, or none if that is not known."""
        counting = self._checkpoints.amend(FAILED + trigger_id, {str(delivery_id): 1})
        counted = self._write(trigger_id, counting).addCallback(_ids)
        return counted.addErrback(_uncounted)

    def forget(self, trigger_id: str) -> None:
        """Remove the failures of a trigger from the store."""
        if self.is_shared and not self._is_closed:
            forgetting = self._checkpoints.put(FAILED + trigger_id, None)
            self._write(trigger_id, forgetting).addErrback(
                _warn, "failures could not be removed from the store, and count on: {why}"
            )

    async def claim(self, trigger_id: str, now: float, reset: float) -> float | None:
        """
        Claim the probe of an open circuit for this server, for one ``reset`` (seconds) from ``now`` (seconds, Unix) on.

        :return: when the claim ends (seconds, Unix); None if another server has it, or the circuit is not open.
        :raises EventLogUnavailable: that is not known.
        """
        for _ in range(TRIES):
            value = await self._checkpoints.get(CIRCUITS)
            record = read_circuits(value).get(trigger_id)
            if record is None or now < record.retry_at <= now + IMPLAUSIBLE * reset:
                return None
            moved = msgspec.structs.replace(record, retry_at=now + reset)
            after = {**value, trigger_id: msgspec.to_builtins(moved)}
            if await self._write(trigger_id, self._checkpoints.replace(CIRCUITS, value, after)):
                return moved.retry_at
        return None

    def follow(self, circuits: ICircuits, known: Collection[str]) -> None:
        """
        Read the records again, which other servers may have changed, and pass those of each trigger to ``circuits``.

        What this server writes meanwhile is newer than what is read: those triggers are read once more then.

        :param known: further triggers, whose records may be gone.
        """
        self._circuits, self._known = circuits, known
        if self._is_following:
            self._is_outdated = True
            return
        self._is_following = True
        following = Deferred.fromCoroutine(self._follow(self._serial))
        following.addErrback(_not_followed).addBoth(lambda _: self._followed())

    async def _follow(self, serial: int) -> None:
        records, failed = await self.read()
        assert self._circuits is not None
        for trigger_id in {*records, *failed, *self._known}:
            if trigger_id in self._writing or self._written.get(trigger_id, 0) > serial:
                self._is_outdated = True
            else:
                self._circuits.found(trigger_id, records.get(trigger_id), failed.get(trigger_id, frozenset()))

    def _followed(self) -> None:
        self._is_following = False
        self._follow_again()

    def _follow_again(self) -> None:
        if self._is_outdated and not self._writing and not self._is_following and self._circuits is not None:
            self._is_outdated = False
            self.follow(self._circuits, self._known)

    def _write(self, trigger_id: str, writing: Deferred[T]) -> Deferred[T]:
        """Record that a trigger's record is being written: what is read meanwhile may be older."""
        self._serial += 1
        self._written[trigger_id] = self._serial
        self._writing[trigger_id] += 1

        def over(result: Any) -> Any:
            self._writing[trigger_id] -= 1
            if not self._writing[trigger_id]:
                del self._writing[trigger_id]
            self._follow_again()
            return result

        return writing.addBoth(over)


def _ids(value: Mapping[str, Any] | None) -> frozenset[int]:
    return frozenset(map(int, value or ()))


def _warn(failure: Failure, message: str) -> None:
    log.warn(message, why=failure.getErrorMessage())


def _uncounted(failure: Failure) -> frozenset[int]:
    failure.trap(EventLogUnavailable)  # then the settlement is not written either, and is tried again
    return frozenset()


def _not_followed(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("circuits cannot be read again", failure)
