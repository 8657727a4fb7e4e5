"""
The records of circuits in the store, which all servers on it share: open circuits, failures of closed ones, and who
may begin the probe.

A failure is counted in the reactor turn in which its settlement is written, so that one commit holds both. A server
claims the probe of an open circuit by moving the circuit's ``retry_at`` in the store; only one server can do that.
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
"""The prefix of the name of a record of failures; the trigger's id follows. It holds the ids of failed deliveries."""
IMPLAUSIBLE = 2.0
"""If ``retry_at`` is more than this many times ``reset`` ahead, a wrong clock wrote it, and it is not respected."""
TRIES = 5
"""How often a claim is tried if the records of other circuits change at the same time."""

T = TypeVar("T")


class ICircuits(Protocol):
    """The methods of `harn.circuits.service.Circuits` that `CircuitRecords` calls."""

    def found(self, trigger_id: str, record: OpenRecord | None, failed: frozenset[int]) -> None:
        """
        Called with what the store has of one trigger's circuit.

        :param record: None unless the circuit is open.
        :param failed: the ids of the deliveries that failed in a row.
        """


class CircuitRecords:
    """
    Reads and writes the records of circuits.

    :param is_shared: whether other servers may use the store; then failures are counted and probes claimed there.
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
        """Stop writing, because another program writes the circuits from now on."""
        self._is_closed = True

    async def read(self) -> tuple[Mapping[str, OpenRecord], Mapping[str, frozenset[int]]]:
        """
        Return the records of open circuits, and the failed deliveries of closed ones, both by trigger id.

        :raises EventLogUnavailable: the store cannot be read.
        """
        found = dict(await self._checkpoints.beginning(CIRCUITS))
        failed = {name[len(FAILED) :]: _ids(each) for name, each in found.items() if name.startswith(FAILED)}
        return read_circuits(found.get(CIRCUITS)), failed

    def save(self, trigger_id: str, record: OpenRecord | None) -> None:
        """Write the record of a circuit that has opened; with None, remove the record of one that has closed."""
        if not self._is_closed:
            saving = self._checkpoints.amend(CIRCUITS, {trigger_id: msgspec.to_builtins(record)})
            self._write(trigger_id, saving).addErrback(
                _warn, "the state of the circuits could not be written, so that a restart closes them: {why}"
            )

    def count(self, trigger_id: str, delivery_id: int) -> Deferred[frozenset[int]]:
        """Add a delivery to the trigger's failures; fire with those of all servers, or none if that failed."""
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
        :raises EventLogUnavailable: the store cannot be read or written; whether the claim was made is unknown.
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
        Read the records again, since other servers may have changed them, and pass each trigger's to ``circuits``.

        A record that this server writes meanwhile is newer than the one read: all are read once more after the write.

        :param known: triggers to report even if the store has no record of them any more.
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
        """Record that a trigger's record is being written, so that `follow` does not use an older one that it reads."""
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
    failure.trap(EventLogUnavailable)  # the settlement, in the same commit, fails too and is retried
    return frozenset()


def _not_followed(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("circuits cannot be read again", failure)
