"""Checks of the store: its soundness and size, the clock against its stamps, what is unfinished in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from harn.backup.backups import StoreReport
from harn.backup.store_check import check_store
from harn.cli.doctor.model import Row, failure, format_age, format_size, ok, skipped, warning
from harn.cli.doctor.subject import Subject
from harn.cli.sources import StoredDeliveries, StoredGenerations, open_store
from harn.clocks import rfc3339
from harn.deliveries.operations import ListDeliveries
from harn.errors import HarnError, StateDirectoryUnusable
from harn.history.operations import ListGenerations
from harn.orchestrator.operations import InHand
from harn.orchestrator.stores import has_store, offline_address
from harn.store.postgres.schema import SCHEMA_VERSION as POSTGRES_SCHEMA
from harn.store.sqlite.migrations import SCHEMA_VERSION

EVENT_LOG, CLOCK, DISPATCHER = "event log", "clock", "dispatcher"
LARGE_WAL = 1024**3


def check_event_log(subject: Subject) -> Iterator[Row]:
    """Check the event log: what takes moments, or every page and row, as ``check --store`` does."""
    try:
        address = offline_address(subject.state_dir, subject.environ)
        if address is not None:
            with open_store(subject.state_dir) as store:
                dead = sum(store.ask(store.totals.dead()).values())
            yield ok(EVENT_LOG, f"{address.location}, schema {POSTGRES_SCHEMA}; {dead:,} dead letters")
            return
    except StateDirectoryUnusable as error:
        yield failure(EVENT_LOG, str(error), "correct that first; run this as the server's user")
        return
    except HarnError as error:
        yield failure(EVENT_LOG, str(error), "see that it runs and can be reached: harn store status")
        return
    try:
        report = check_store(subject.state_dir, whole=subject.is_deep)
    except StateDirectoryUnusable:
        yield skipped(EVENT_LOG, f"there is none in {subject.state_dir} yet")
        return
    wal = 0
    with suppress(OSError):
        wal = os.path.getsize(report.file + "-wal")
    yield from rows_of_event_log(report, wal)


def rows_of_event_log(report: StoreReport, wal: int) -> Iterator[Row]:
    """Return the finding about a check, and of a write-ahead log of so many bytes."""
    for problem in report.problems:
        yield failure(EVENT_LOG, problem.what, problem.hint)
    if report.problems:
        return
    counts = ", ".join(f"{number:,} {state}" for state, number in sorted(report.deliveries.items())) or "none"
    looked = f"sound; deliveries: {counts}" if report.whole else "sound at a look; doctor --deep reads everything"
    said = (
        f"sqlite {report.file}, {format_size(report.bytes)} ({format_size(report.free_bytes)} free), schema"
        f" {report.schema}, {looked}"
    )
    if report.schema is not None and report.schema < SCHEMA_VERSION:
        said += f"; the next start makes its schema {SCHEMA_VERSION}"
    if wal >= LARGE_WAL:
        hint = "something keeps it from being taken over: end long reads, such as a copy of it that hangs, then restart"
        yield warning(EVENT_LOG, f"{said}; its write-ahead log has {format_size(wal)}", hint)
    elif not report.shrinks:
        hint = "with the server stopped: harn orchestrator compact"
        yield warning(EVENT_LOG, f"{said}; the file does not shrink by itself", hint)
    else:
        yield ok(EVENT_LOG, said)


EARLIEST = 1_704_067_200.0
"""2024-01-01, in seconds, Unix: a clock before it was never set."""
AHEAD, TOO_FAR_AHEAD = 5.0, 300.0
"""Seconds that a stamp may lie in the future, and by which a clock that was set back refuses signed requests."""
TIMESYNC, SYNCHRONIZED = "/run/systemd/timesync", "/run/systemd/timesync/synchronized"


def check_clock(subject: Subject) -> Iterator[Row]:
    """Check the clock against the newest stamps in the state directory; nothing outside is asked."""
    has_timesync = os.path.isdir(TIMESYNC)
    yield row_of_clock(subject.now, read_stamps(subject), os.path.exists(SYNCHRONIZED) if has_timesync else None)


def read_stamps(subject: Subject) -> Mapping[str, float]:
    """Return the newest times that a server wrote (seconds, Unix), by the name of each."""
    stamps = {}
    for name in ("started_at", "stopped_at"):
        at = seconds_of((subject.state or {}).get(name))
        if at is not None:
            stamps[f"{name} of the state file"] = at
    with suppress(HarnError):
        stored = StoredDeliveries(subject.state_dir)
        for delivery in stored.page(ListDeliveries(limit=1)).deliveries:
            at = seconds_of(delivery.received_at)
            if at is not None:
                stamps["the newest delivery"] = at
    with suppress(HarnError):
        generations = StoredGenerations(state_dir=subject.state_dir, manifest=subject.options.manifest)
        for each in generations.history(ListGenerations(limit=1)).generations:
            at = seconds_of(each.adopted_at)
            if at is not None:
                stamps["the newest generation"] = at
    return stamps


def seconds_of(text: Any) -> float | None:
    """Read a time in the form of RFC 3339; None for anything else."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None


def row_of_clock(now: float, stamps: Mapping[str, float], is_synchronized: bool | None) -> Row:
    """
    Return the finding about the clock.

    :param is_synchronized: as systemd-timesyncd has it; None where that does not run.
    """
    said = f"it is {rfc3339(now)}"
    hint = "set it, and keep it set: timedatectl set-ntp true, or chrony; signed requests count for 300 s only"
    if now < EARLIEST:
        return failure(CLOCK, f"{said}: the clock was never set", hint)
    newest = max(stamps, key=lambda name: stamps[name], default=None)
    if newest is not None:
        ahead = stamps[newest] - now
        said += f"; the newest stamp is that of {newest}, {format_age(abs(ahead))} {'ahead' if ahead > 0 else 'ago'}"
        if ahead > TOO_FAR_AHEAD:
            return failure(CLOCK, f"{said}: the clock was set back", hint)
        if ahead > AHEAD:
            return warning(CLOCK, f"{said}: the clock was set back", hint)
    if is_synchronized is False:
        return warning(CLOCK, f"{said}; systemd-timesyncd has not synchronized it", hint)
    return ok(CLOCK, said + ("; synchronized by systemd-timesyncd" if is_synchronized else ""))


def check_dispatcher(subject: Subject) -> Iterator[Row]:
    """Check the unfinished deliveries, by the server or else by its store."""
    inspection = subject.serving.inspection
    if inspection is not None and isinstance(inspection.dispatcher, InHand):
        in_hand = inspection.dispatcher
        dead = sum({each.id: each.dead for each in inspection.triggers}.values())  # versions show that of their trigger
        yield row_of_dispatcher(in_hand.in_flight, in_hand.queued, in_hand.waiting_retries, dead)
    elif not has_store(subject.state_dir, subject.environ):
        yield skipped(DISPATCHER, "no server runs, and there is no event log")
    else:
        with open_store(subject.state_dir) as store:
            unfinished = store.ask(store.totals.unfinished())
            dead = sum(store.ask(store.totals.dead()).values())
        ready, waiting = (sum(getattr(each, name) for each in unfinished) for name in ("ready", "waiting"))
        yield row_of_dispatcher(0, ready, waiting, dead)


def row_of_dispatcher(in_flight: int, queued: int, waiting: int, dead: int) -> Row:
    """Return the finding about these numbers of deliveries."""
    said = f"in_flight={in_flight} queued={queued} retry_depth={waiting} dlq_depth={dead}"
    if dead:
        hint = "`harn orchestrator dlq` groups the dead letters; replay or discard them"
        return warning(DISPATCHER, said, hint)
    return ok(DISPATCHER, said)
