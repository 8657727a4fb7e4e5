"""The account of a server that was killed again and again: its store, and its handlers' own lines."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from benchmarks.kills_traffic import FLAKY_ATTEMPTS, OTHER_ATTEMPTS, TRIGGERS

READY, WAITING, DONE, DEAD, SKIPPED, DISCARDED, REPLAYED = range(7)
CRASHES_AT_MOST = 10
"""Kills while a delivery ran after which it is given up."""
GRACE = 1.0
"""Seconds for which the handlers of a killed server may still write a line, on a machine that is busy."""
PAUSE_GRACE = 2.0
"""Seconds after a pause in which the line of a call that was sent before it may come."""


@frozen(kw_only=True)
class Row:
    """One delivery as it is stored: ``state`` is one of this module's; ``numbers`` are those of its attempts."""

    event_id: str
    trigger: str
    key: str
    state: int
    attempts: int
    reason: str | None
    replay_of: str | None
    replayed_as: str | None
    numbers: tuple[int, ...]


@frozen(kw_only=True)
class Call:
    """One line of a handler: an attempt of an event has begun, or has ended well, at a time (seconds, Unix)."""

    event_id: str
    attempt: int
    trigger: str
    at: float


@define
class Account:
    """
    Everything that was left behind.

    :ivar rows: by event id. ``jobs``: by number, the columns by name, and their items.
    :ivar begun: the calls of each attempt of each event, in order; ``ended``: those that ended well.
    """

    rows: Mapping[str, Row]
    job: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]
    integrity: str
    begun: Mapping[tuple[str, int], list[Call]]
    ended: Mapping[str, list[Call]]
    problems: dict[str, list[str]] = field(factory=lambda: defaultdict(list))

    def count(self, state: int) -> int:
        """Count the deliveries of a state."""
        return sum(row.state == state for row in self.rows.values())

    # Nothing lost

    def check_accepted(self, accepted: Collection[str], discarded: Collection[str]) -> None:
        """Check that everything accepted is there, and has ended; what was discarded stays so."""
        for event_id in accepted:
            if event_id not in self.rows:
                self.problems["accepted events that are not in the store"].append(event_id)
        for row in self.rows.values():
            if row.state in (READY, WAITING):
                self.problems["deliveries without an end after the drain"].append(str(row))
            if row.state == SKIPPED:
                self.problems["deliveries skipped, which none should be"].append(str(row))
        for event_id in discarded:
            if self.rows[event_id].state != DISCARDED:
                self.problems["dead letters answered as discarded that are not"].append(str(self.rows[event_id]))

    def check_ends(self) -> None:
        """Check that what is done was handled to its end, and that what is dead has its reason."""
        for row in self.rows.values():
            if row.state == DONE and row.event_id not in self.ended:
                self.problems["deliveries done that no handler has ended"].append(str(row))
            if row.state in (DEAD, DISCARDED) and not self._may_be_dead(row):
                self.problems["dead letters without a cause"].append(str(row))

    def _may_be_dead(self, row: Row) -> bool:
        calls = [call for number in range(1, 200) for call in self.begun.get((row.event_id, number), ())]
        if row.reason == "recovery_limit":
            return len(calls) >= CRASHES_AT_MOST
        if row.reason == "retry_exhausted":
            return row.trigger == "flaky" and len(row.numbers) == FLAKY_ATTEMPTS and row.event_id not in self.ended
        return False

    # Nothing too often

    def check_attempts(self, kills: Sequence[float]) -> None:
        """Check that attempts keep their limit, and that one is repeated only if a kill interrupted it."""
        for row in self.rows.values():
            limit = FLAKY_ATTEMPTS if TRIGGERS[row.trigger].handler != "away" else OTHER_ATTEMPTS
            if row.attempts > limit or len(row.numbers) > limit:
                self.problems["deliveries with more attempts than their limit"].append(str(row))
            if row.numbers != tuple(range(1, row.attempts + 1)):
                self.problems["deliveries whose attempts are not numbered 1, 2, ..."].append(str(row))
        for (event_id, number), calls in self.begun.items():
            found = self.rows.get(event_id)
            # The last attempt of one that is given up at its tenth crash was interrupted, and is not counted.
            if found is not None and number > found.attempts + (found.reason == "recovery_limit"):
                self.problems["attempts that ran and are not in the store"].append(f"{event_id} {number}")
            for before, after in pairwise(calls):
                if not any(before.at - GRACE <= kill <= after.at for kill in kills):
                    self.problems["attempts repeated without a kill between"].append(f"{before} {after}")

    def repeated(self) -> tuple[int, int]:
        """Return how many calls were repetitions, and how many of those came after a good end."""
        again = sum(len(calls) - 1 for calls in self.begun.values())
        return again, sum(len(calls) - 1 for calls in self.ended.values())

    def check_keys(self, accepted: Mapping[str, str]) -> None:
        """Check that no dedupe key was accepted twice, but for what repeats a dead letter."""
        by_key: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.rows.values():
            if row.replay_of is None:
                by_key[row.trigger, row.key].append(row)
        for key, rows in by_key.items():
            if len(rows) > 1:
                self.problems["dedupe keys accepted twice"].append(f"{key}: {rows}")
        for row in self.rows.values():
            if row.event_id in accepted and accepted[row.event_id] != row.key:
                self.problems["answers that name another event"].append(str(row))

    # What an operator asked for

    def check_job(self, expected: Collection[str]) -> None:
        """Check that the bulk replay has replayed each of these dead letters, and each once."""
        job = self.job
        if (job["state"], job["matched"], job["changed"], job["skipped"]) != ("done", len(expected), len(expected), 0):
            self.problems["counts of the bulk replay that are wrong"].append(str(dict(job)))
        replays: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows.values():
            if row.replay_of is not None:
                replays[row.replay_of].append(row)
        named = {item["event_id"]: item["replayed_as"] for item in self.items}
        for event_id in expected:
            row, made = self.rows[event_id], replays[event_id]
            is_right = row.state == REPLAYED and len(made) == 1 and made[0].event_id == row.replayed_as
            if not is_right or named.get(event_id) != row.replayed_as:
                self.problems["dead letters not replayed once and only once"].append(f"{row} {made}")

    def check_pauses(self, pauses: Sequence[tuple[float, float]]) -> None:
        """Check that nothing of the paused trigger began while it was paused."""
        for calls in self.begun.values():
            for call in calls:
                if call.trigger == "held" and any(since + PAUSE_GRACE < call.at < until for since, until in pauses):
                    self.problems["calls while their trigger was paused"].append(str(call))

    def check_store(self) -> None:
        """Check that the database is sound."""
        if self.integrity != "ok":
            self.problems["damages of the database"].append(self.integrity)


def read_account(state_dir: Path, seen: Path, job: int) -> Account:
    """Read the store of a server that has ended, with SQL of this module's own, and the lines of its handlers."""
    with closing(sqlite3.connect(f"file:{state_dir}/events.sqlite?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        numbers: dict[int, list[int]] = defaultdict(list)
        for number, delivery_id in database.execute("SELECT number, delivery_id FROM attempts ORDER BY id"):
            numbers[delivery_id].append(number)
        rows = {row.event_id: row for row in _rows(database, numbers)}
        (integrity,) = database.execute("PRAGMA integrity_check").fetchone()
        account = Account(
            rows=rows,
            job=database.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone(),
            items=database.execute("SELECT * FROM job_items WHERE job_id = ?", (job,)).fetchall(),
            integrity=integrity,
            begun=defaultdict(list),
            ended=defaultdict(list),
        )
    for line in seen.read_text().splitlines():
        what, event_id, attempt, trigger, at = line.split()
        call = Call(event_id=event_id, attempt=int(attempt), trigger=trigger, at=float(at))
        if what == "begins":
            account.begun[event_id, call.attempt].append(call)
        else:
            account.ended[event_id].append(call)
    return account


def _rows(database: sqlite3.Connection, numbers: Mapping[int, list[int]]) -> Iterator[Row]:
    for row in database.execute("SELECT d.*, e.envelope FROM deliveries d JOIN events e ON e.id = d.id"):
        yield Row(
            event_id=row["event_id"],
            trigger=row["trigger_id"],
            key=json.loads(row["envelope"])["dedupe_key"],
            state=row["ended_as"] or row["state"],
            attempts=row["attempts"],
            reason=row["reason"],
            replay_of=row["replay_of"],
            replayed_as=row["replayed_as"],
            numbers=tuple(numbers[row["id"]]),
        )


def reasons(account: Account) -> str:
    """Return how many dead letters have each reason."""
    counted = Counter(row.reason for row in account.rows.values() if row.state in (DEAD, DISCARDED))
    return ", ".join(f"{reason} {count:,}" for reason, count in counted.most_common()) or "none"
