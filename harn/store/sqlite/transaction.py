"""One batch of units as one transaction, in which a bad unit fails alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from attrs import evolve

from harn.errors import EventLogGone, HarnError, StoreError
from harn.store.sqlite.session import Session
from harn.store.sqlite.units import Accept, Append, Call, Settle, Unit

_ABOUT_THE_UNIT = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


def is_storage_failure(error: BaseException) -> bool:
    """
    Tell whether the database failed (full, locked, read-only, damaged, gone), rather than one unit being wrong.
    """
    if isinstance(error, EventLogGone | OSError):
        return True
    if isinstance(error, sqlite3.Error):
        return not isinstance(error, _ABOUT_THE_UNIT)
    return not isinstance(error, Exception) or isinstance(error, MemoryError)


def write_batch(session: Session, units: Sequence[Unit], now: float) -> None:
    """
    Write all units in one commit. Each unit that is wrong in itself gets its error; the others are written.

    :param now: seconds, Unix: what has expired by then is absent.
    :raises Exception: a storage failure; nothing was written, and the session's numbers are to be read again.
    """
    execute = session.connection.execute
    session.begin()
    numbers = evolve(session.numbers)
    try:
        _write_grouped(session, units, now)
        execute("COMMIT")
    except Exception as error:
        if is_storage_failure(error):
            raise
        # A statement for many units does not say which of them it is about.
        execute("ROLLBACK")
        session.numbers = numbers
        session.begin()
        for unit in units:
            _write_alone(session, unit, now)
        execute("COMMIT")


def _write_grouped(session: Session, units: Sequence[Unit], now: float) -> None:
    """
    Write units of one sort together. Different sorts touch different rows: a delivery is settled only after the batch
    that accepted it. A `Call` may touch anything, so that it keeps its place in the order.
    """
    accepts: list[Accept] = []
    settles: list[Settle] = []
    appends: list[Append] = []

    def write() -> None:
        if accepts:
            session.accept(accepts, now)
            accepts.clear()
        if settles:
            session.settle(settles)
            settles.clear()
        if appends:
            session.append(appends)
            appends.clear()

    for unit in units:
        if isinstance(unit, Accept):
            accepts.append(unit)
        elif isinstance(unit, Settle):
            settles.append(unit)
        elif isinstance(unit, Append):
            appends.append(unit)
        else:
            write()
            _write_alone(session, unit, now)
    write()


def _write_alone(session: Session, unit: Unit, now: float) -> None:
    execute = session.connection.execute
    numbers = evolve(session.numbers)
    unit.value = unit.error = None
    execute("SAVEPOINT unit")
    try:
        if isinstance(unit, Call):
            unit.value = unit.work(session)
        else:
            _write_grouped(session, [unit], now)
    except Exception as error:
        if is_storage_failure(error):
            raise
        execute("ROLLBACK TO unit")
        session.numbers = numbers
        unit.value = None
        unit.error = error if isinstance(error, HarnError) else StoreError(f"it cannot be stored: {error}")
    execute("RELEASE unit")
