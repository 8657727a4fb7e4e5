"""
A start on a store with a million unfinished deliveries: how soon the server serves, its memory, its rate.

The rows are inserted into the database of a server that has ended, so that making them takes seconds.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.cores import SERVER, cpu_seconds, holdings, on_core
from benchmarks.figures import Goals, Table
from benchmarks.subjects import HEAD, QUICK
from harn.testing.manifests import manifest_text
from harn.testing.server import ServerProcess

DATABASE = Path("state") / "events.sqlite"
LATER = 7 * 86_400.0
"""Seconds until those that wait for a retry are due."""

_ROWS = "WITH RECURSIVE n (i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :first + :count) "
_EVENTS = "INSERT INTO events SELECT i, :envelope, :body FROM n"
_DELIVERIES = (
    "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, state, attempts,"
    " due_at) SELECT i, 'trigger_evt_' || i, 't' || (i % :triggers), 1, 'github', 'issues.opened', :owner, :now,"
    " :state, :state, CASE :state WHEN 1 THEN :due + (i % 1000) * 0.001 END FROM n"
)


@frozen(kw_only=True)
class Started:
    """
    One start.

    :ivar ready: seconds until it served; ``spent``: processor time of all its processes until then (seconds).
    :ivar resident: MiB of all processes.
    :ivar rate: deliveries finished in each second; ``cost``: milliseconds of processor time for each.
    """

    ready: float
    spent: float
    resident: float
    rate: float
    cost: float


class Store:
    """
    The database of a server that has run once in ``directory``.

    :param triggers: of the manifest.
    """

    def __init__(self, directory: Path, triggers: int) -> None:
        self.directory, self.triggers = directory, triggers
        (directory / "harn.toml").write_text(manifest_text(triggers, head=HEAD))
        (directory / "handlers.py").write_text(QUICK)
        server = ServerProcess(directory).wait_ready()
        answer = server.deliver("/hooks/t0", delivery="first", event="issues")
        assert answer.status == 200, answer
        server.terminate()
        self.first = 2

    def insert(self, count: int, *, state: int, due_in: float = 0.0) -> None:
        """Add deliveries; ``state`` is 0 for ready, 1 for waiting, ``due_in`` so many seconds from now."""
        now = time.time()
        with closing(sqlite3.connect(self.directory / DATABASE, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA cache_size = -200000")
            envelope, body = connection.execute("SELECT envelope, body FROM events LIMIT 1").fetchone()
            (owner,) = connection.execute("SELECT max(incarnation) FROM servers").fetchone()
            values = {
                "first": self.first,
                "count": count,
                "envelope": envelope,
                "body": body,
                "triggers": self.triggers,
                "owner": owner,
                "now": now,
                "state": state,
                "due": now + due_in,
            }
            connection.execute("BEGIN")
            connection.execute(_with(_EVENTS), values)
            connection.execute(_with(_DELIVERIES), values)
            # As a server leaves it, whose totals count what it accepted; else the next one would count all of these.
            highest = str(self.first + count - 1).encode()
            connection.execute("INSERT OR REPLACE INTO standing VALUES ('totals_counted', ?)", (highest,))
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.first += count
        with open(self.directory / DATABASE, "rb") as file:
            os.fsync(file.fileno())  # else the server's first syncs would write all of it

    def finished(self) -> int:
        """Count the deliveries that are done."""
        (count,) = self.query("SELECT count(*) FROM deliveries WHERE state = 2")
        return int(count)

    def query(self, statement: str) -> tuple[Any, ...]:
        """Return the first row of a query."""
        uri = f"file:{self.directory / DATABASE}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0)) as connection:
            found: tuple[Any, ...] = connection.execute(statement).fetchone()
            return found

    def start(self, seconds: float) -> Started:
        """Start a server, let it work for so many seconds, and end it."""
        before = self.finished()
        began = time.perf_counter()
        with on_core(SERVER):
            server = ServerProcess(self.directory)
        try:
            while "HTTP listener ready" not in server.stderr and server.process.poll() is None:
                time.sleep(0.002)
            ready = time.perf_counter() - began
            spent = cpu_seconds(server.pid)
            server.wait_ready()
            time.sleep(seconds)
            done = self.finished() - before
            resident = holdings(server.pid).resident
            cost = (cpu_seconds(server.pid) - spent) * 1e3 / max(1, done)
            took = time.perf_counter() - began - ready
        finally:
            server.kill()
            server.stop()
        return Started(ready=ready, spent=spent, resident=resident, rate=done / took, cost=cost)


def _with(insert: str) -> str:
    table, _, rest = insert.partition(" SELECT ")
    return f"{_ROWS}{table} SELECT {rest}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks backlog", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--triggers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--due", type=int, default=50_000, help="of those that are due at once")
    told = parser.parse_args(arguments)
    cases: dict[str, tuple[tuple[int, int, float], ...]] = {
        f"{told.due:,} due": ((told.due, 1, 0.0),),
        f"{told.due:,} due, {told.count:,} waiting": ((told.due, 1, 0.0), (told.count, 1, LATER)),
        f"{told.count:,} ready": ((told.count, 0, 0.0),),
    }
    table = Table(
        "Start on unfinished deliveries",
        ("store", "ready (s)", "of processor time", "RSS of all (MiB)", "done/s", "ms of it each"),
    )
    found: dict[str, Started] = {}
    for name, groups in cases.items():
        with tempfile.TemporaryDirectory() as directory:
            store = Store(Path(directory), told.triggers)
            for count, state, due_in in groups:
                store.insert(count, state=state, due_in=due_in)
            found[name] = store.start(told.seconds)
        each = found[name]
        table.add(
            name,
            f"{each.ready:.2f}",
            f"{each.spent:.2f}",
            f"{each.resident:.0f}",
            f"{each.rate:.0f}",
            f"{each.cost:.2f}",
        )
    table.show()
    alone, *crowded = found
    goals = Goals()
    for name in crowded:
        goals.at_most(f"{name}: ready (s)", 2.0, [found[name].ready])
        goals.at_most(f"{name}: resident of all (MiB)", 300, [found[name].resident], 0)
        # These two are the same on a machine that does much else.
        more = found[name].spent - found[alone].spent
        goals.at_most(f"{name}: processor time of the start, more than that of {alone} (s)", 0.5, [more])
        cost = found[name].cost / found[alone].cost
        goals.at_most(f"{name}: processor time of each, x that of {alone}", 1.3, [cost])
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
