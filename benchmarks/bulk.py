"""The work of operators on a large store: cancel 100,000 deliveries, back up 1 GB under load, take on an old schema."""

from __future__ import annotations

import argparse
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

from benchmarks.backlog import DATABASE, LATER, Store
from benchmarks.cores import SERVER, cpu_seconds, on_core
from benchmarks.figures import Goals, Table
from benchmarks.load import Running
from harn.store.sqlite.migrations import STEPS
from harn.store.sqlite.schema import connect_writer, migrate
from harn.testing.server import ServerProcess

STEP = 4
"""The step of the schema that is timed, from the version before it."""
PATIENCE = 900.0
ADDED = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)|CREATE (INDEX|TABLE) (\w+)")
OLD_ROWS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO deliveries"
    " (id, event_id, trigger_id, version, provider, kind, owner, received_at, state, attempts, settled_at, dead_number,"
    " result) SELECT i, 'trigger_evt_0197a22a-0000-7000-8000-' || printf('%012d', i), 't' || (i % 50), 1, 'github',"
    " 'k' || (i % 7), 1, i, CASE WHEN i % 10 THEN 2 ELSE 3 END, 1, i, CASE WHEN i % 10 THEN NULL ELSE i END,"
    " CASE WHEN i % 100 = 9 THEN NULL ELSE x'6e756c6c' END FROM n"
)


def serve(store: Store) -> ServerProcess:
    """Start a server on its core."""
    with on_core(SERVER):
        server = ServerProcess(store.directory)
    return server.wait_ready()


def cancel(table: Table, goals: Goals, count: int) -> None:
    """Cancel this many deliveries that wait, in bulk."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory), 10)
        store.insert(count, state=1, due_in=LATER)
        server = serve(store)
        try:
            began, spent = time.perf_counter(), cpu_seconds(server.pid)
            job = server.admin("POST", "/admin/cancel", {"state": "waiting"}).json()
            while job["state"] != "done":
                time.sleep(0.1)
                job = server.admin("GET", f"/admin/jobs/{job['job']}").json()
            took, spent = time.perf_counter() - began, cpu_seconds(server.pid) - spent
            (left,) = store.query("SELECT count(*) FROM deliveries WHERE state < 2")
        finally:
            server.kill()
            server.stop()
    table.add(f"cancel {count:,} deliveries", f"{took:.1f}", f"{spent:.1f}", f"{count / took:,.0f} a second")
    goals.at_most("deliveries not cancelled", 0, [float(left + job["skipped"])], 0)
    goals.at_most("cancelling: milliseconds of processor time for each", 1.0, [spent / count * 1e3])


def back_up(table: Table, goals: Goals, size: int) -> None:
    """Measure a backup of a store of so many MB while requests come."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store(Path(directory), 10)
        database = Path(directory) / DATABASE
        while database.stat().st_size < size * 1e6:
            store.insert(50_000, state=1, due_in=LATER)
        server = serve(store)
        try:
            quiet = Running(f"{server.url}/hooks/t0", 10.0).result()
            load = Running(f"{server.url}/hooks/t0", PATIENCE)
            began, spent = time.perf_counter(), cpu_seconds(server.pid)
            connection = server.connect(PATIENCE)
            made = connection.request(
                "POST",
                "/admin/backup",
                b'{"file": "%s"}' % str(Path(directory) / "copy.backup").encode(),
                {"Authorization": "Bearer test-key"},
            )
            took, spent = time.perf_counter() - began, cpu_seconds(server.pid) - spent
            beside = load.stop()
            stored = made.json()
            assert made.status == 200, stored
        finally:
            server.kill()
            server.stop()
    table.add(
        f"back up {stored['bytes'] / 1e6:,.0f} MB under load",
        *(f"{took:.1f}", f"{spent:.1f}", f"{beside.rate:,.0f} requests a second, quiet {quiet.rate:,.0f}"),
    )
    goals.at_most("requests failed during a backup", 0, [float(beside.failed)], 0)
    goals.at_most("rate without a backup, x that during one", 4.0, [quiet.rate / beside.rate])


def take_on(table: Table, goals: Goals, count: int) -> None:
    """Migrate a store of the schema before `STEP` that has so many deliveries."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "events.sqlite")
        connection = connect_writer(path, create=True, synchronous="FULL", busy_timeout=5.0)
        with closing(connection):
            undo(connection)
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(OLD_ROWS, (count,))
            connection.execute("PRAGMA synchronous = FULL")
            slept: list[float] = []
            longest = Longest(slept.append)
            began, spent = time.perf_counter(), time.process_time()
            with patch.object(time, "sleep", longest.sleep):
                migrate(connection, STEP)
            took, spent = time.perf_counter() - began, time.process_time() - spent
            (known,) = connection.execute("SELECT count(*) FROM deliveries WHERE ended_as = 4").fetchone()
    pauses = f"{len(slept)} pauses ({sum(slept):.1f} s) for others; longest piece {longest.seconds:.1f} s"
    table.add(f"schema {STEP - 1} to {STEP}, {count:,} deliveries", f"{took:.1f}", f"{spent:.1f}", pauses)
    goals.at_least("deliveries whose row was changed", count // 100, [float(known)], 0)
    goals.at_most(f"schema {STEP - 1} to {STEP}: processor time (s)", 30.0, [spent])


class Longest:
    """Notes the longest time between two pauses, in which another server cannot write."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._since = time.perf_counter()
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        """Record the time since the last pause."""
        self.seconds = max(self.seconds, time.perf_counter() - self._since)
        self._sleep(seconds)
        self._since = time.perf_counter()


def undo(connection: sqlite3.Connection) -> None:
    """Remove the additions of the step from an empty database."""
    for statement in reversed(STEPS[STEP]):
        found = ADDED.match(statement)
        if found is not None and found[1] is not None:
            connection.execute(f"ALTER TABLE {found[1]} DROP COLUMN {found[2]}")
        elif found is not None:
            connection.execute(f"DROP {found[3]} {found[4]}")
    connection.execute(f"PRAGMA user_version = {STEP - 1}")


CASES = {"cancel": cancel, "backup": back_up, "schema": take_on}
SIZES = {"cancel": 100_000, "backup": 1_000, "schema": 1_000_000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bulk", description=__doc__)
    parser.add_argument("--case", choices=CASES, action="append", help="all by default")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual sizes")
    options = parser.parse_args(arguments)
    table = Table("A large store", ("what", "seconds", "of processor time", "and"))
    goals = Goals()
    for name in options.case or CASES:
        CASES[name](table, goals, int(SIZES[name] * options.share))
        print(table.rows[-1], flush=True)
    table.show()
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
