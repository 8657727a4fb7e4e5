"""Units of work, and a batch of them as one transaction, in which a unit that is wrong fails alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harn.errors import EventLogGone, HarnError, StoreError
from harn.store.database import Session

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


def log_waiter() -> None:
    """Log the exception that what waited for a write has raised."""
    from twisted.logger import Logger  # here, since commands read an event log and must start fast

    log = Logger(namespace="harn.store")
    log.failure("a callback of a write failed; the other writes of its batch are not affected")


class Unit:
    """
    A unit that is written whole or not at all. The writer's thread sets ``value``, or ``error`` if this unit alone
    failed.

    Plain slots, not a frozen value: thousands are made each second, and their results are filled in.

    :ivar size: bytes that it brings, as far as they count.
    :ivar deferred: fires with the value once it is on disk; None where nothing waits for it, or something else does.
    """

    __slots__ = ("deferred", "error", "value")
    size = 0

    def __init__(self) -> None:
        self.value: Any = None
        self.error: Exception | None = None
        self.deferred: Deferred[Any] | None = None

    def end(self) -> None:
        """Report its value, now that it is on disk, or its error. Called once, in the reactor's thread."""
        if self.deferred is None:
            return
        if self.error is None:
            self.deferred.callback(self.value)
        else:
            self.deferred.errback(self.error)

    @staticmethod
    def end_all(units: Sequence[Any]) -> None:
        """End units of this class that came one after the other in a batch; one that raises delays no other."""
        for unit in units:
            try:
                unit.end()
            except Exception:
                log_waiter()


class GroupedUnit(Unit):
    """
    A unit of which thousands come each second: all of one class in a batch are written together, with few statements.

    Different classes touch different rows: a delivery is settled only after the batch that accepted it.
    """

    __slots__ = ()

    @staticmethod
    def write_all(session: Any, units: Sequence[Any], now: float) -> None:
        """
        Write these units of this class, in order, within the caller's transaction.

        :param now: seconds, Unix: what has expired by then is absent.
        """
        raise NotImplementedError


class PlainUnit(Unit):
    """Any other unit: ``work`` runs within the transaction, and its result is the value. It keeps its place."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[Any], Any]) -> None:
        super().__init__()
        self.work = work


def is_storage_failure(session: Session, error: Exception) -> bool:
    """
    Return whether the database failed (full, locked, read-only, damaged, gone), rather than one unit being wrong.
    """
    if isinstance(error, EventLogGone | OSError | MemoryError):
        return True
    return isinstance(error, session.error) and not session.is_about_unit(error)


def write_batch(session: Session, units: Sequence[Unit], now: float) -> None:
    """
    Write all units in one commit. Each unit that is wrong in itself gets its error; the others are written.

    :param now: seconds, Unix: what has expired by then is absent.
    :raises Exception: a storage failure; nothing was written, and the session's numbers are to be read again.
    """
    session.begin()
    numbers, incarnation = session.numbers.copy(), session.incarnation
    try:
        _write_grouped(session, units, now)
        session.commit()
    except Exception as error:
        if is_storage_failure(session, error):
            raise
        # A statement for many units does not say which of them it is about.
        session.roll_back()
        session.numbers, session.incarnation = numbers, incarnation
        session.begin()
        for unit in units:
            _write_alone(session, unit, now)
        session.commit()


def _write_grouped(session: Session, units: Sequence[Unit], now: float) -> None:
    kinds = set(map(type, units))
    if len(kinds) == 1 and issubclass(only := kinds.pop(), GroupedUnit):  # as most batches are
        only.write_all(session, units, now)
        return
    groups: dict[type[GroupedUnit], list[GroupedUnit]] = {}

    def write() -> None:
        for kind, group in groups.items():
            kind.write_all(session, group, now)
        groups.clear()

    for unit in units:
        if isinstance(unit, GroupedUnit):
            groups.setdefault(type(unit), []).append(unit)
        else:
            write()
            _write_alone(session, unit, now)
    write()


def _write_alone(session: Session, unit: Unit, now: float) -> None:
    numbers, incarnation = session.numbers.copy(), session.incarnation
    unit.value = unit.error = None
    session.begin_unit()
    try:
        if isinstance(unit, PlainUnit):
            unit.value = unit.work(session)
        else:
            _write_grouped(session, [unit], now)
    except Exception as error:
        if is_storage_failure(session, error):
            raise
        session.undo_unit()
        session.numbers, session.incarnation = numbers, incarnation
        unit.value = None
        unit.error = error if isinstance(error, HarnError) else StoreError(f"it cannot be stored: {error}")
    session.end_unit()
