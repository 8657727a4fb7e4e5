"""Lists of 100 deliveries out of a million, with each filter, and the dead letters in groups."""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Goals, Table, spread
from harn.deliveries.selection import Scan, Selection
from harn.model.delivery import State
from harn.store.offline import OfflineStore
from harn.store.sqlite.offline import open_readonly
from harn.store.sqlite.schema import connect_writer
from harn.testing.stores.kit import new_delivery

LIMIT = 100
DELIVERY = (
    "INSERT INTO deliveries (id, event_id, trigger_id, version, provider, kind, owner, received_at, state, attempts,"
    " due_at, settled_at, dead_number, reason, error_class, error, result, ended_as, skip_reason)"
    " VALUES (?, ?, ?, 1, 'github', ?, 1, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
CASES: Mapping[str, Mapping[str, Any]] = {
    "all": {},
    **{state.value: {"states": frozenset((state,))} for state in State},
    "of a trigger": {"trigger": "t3"},
    "of a trigger with one": {"trigger": "rare"},
    "of a kind": {"kind": "k1"},
    "of a kind with one": {"kind": "rare"},
    "of a trigger and a kind": {"trigger": "t3", "kind": "k1"},
    "dead, of a trigger": {"trigger": "t10", "states": frozenset((State.DEAD,))},
    "dead, of a kind": {"kind": "k1", "states": frozenset((State.DEAD,))},
    "waiting, of a kind": {"kind": "k1", "states": frozenset((State.WAITING,))},
    "dead, since a time": {"since": 1000.0, "states": frozenset((State.DEAD,))},
}


def rows(count: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows: one of ten is dead, one of a hundred skipped, one of a thousand waits, one is ready."""
    for number in range(1, count + 1):
        trigger, kind = (f"t{number % 50}", f"k{number % 7}") if number != 5 else ("rare", "rare")
        at = float(number)
        ending: tuple[Any, ...]
        if number % 10 == 0:
            ending = (3, None, at, number, "retry_exhausted", f"class{number % 3}", "ValueError: no", None, 0, None)
        elif number % 1000 == 7:
            ending = (1, 1e10, None, None, None, None, None, None, 0, None)
        elif number % 1000 == 8:
            ending = (0, None, None, None, None, None, None, None, 0, None)
        elif number % 100 == 9:
            ending = (2, None, at, None, None, None, None, None, 4, "predicate")
        else:
            ending = (2, None, at, None, None, None, None, b"null", 0, None)
        yield (number, f"trigger_evt_{number:036d}", trigger, kind, at, *ending)


def fill(path: str, count: int) -> None:
    """Make a store of so many deliveries, each with an event and an attempt."""
    connection: sqlite3.Connection = connect_writer(path, create=True, synchronous="OFF", busy_timeout=5.0)
    event = new_delivery("e")
    connection.execute("BEGIN")
    connection.executemany(DELIVERY, rows(count))
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?)", ((number, event.envelope, event.body) for number in range(1, count + 1))
    )
    connection.executemany(
        "INSERT INTO attempts (delivery_id, number, version, started_at, completed_at, outcome)"
        " VALUES (?, 1, 1, 1.0, 2.0, 'success')",
        ((number,) for number in range(1, count + 1)),
    )
    connection.execute("COMMIT")
    connection.close()


def processor_time(work: Callable[[], object]) -> float:
    """Return the processor time (ms) of a call, which is the same on a machine that does other things too."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e3


def read(store: OfflineStore, now: float, filters: Mapping[str, Any]) -> None:
    """Read a list, slice by slice, as the commands do."""
    scan = Scan(selection=Selection.of(now, **filters), limit=LIMIT, now=now)
    while scan.needs_more:
        scan.add(store.ask(store.lists.part(*scan.request())))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks lists", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliveries", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    table = Table(f"Lists of {LIMIT} out of {options.deliveries:,} deliveries", ("list", "processor time (ms)"))
    goals = Goals()
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "events.sqlite")
        fill(path, options.deliveries)
        with open_readonly(path) as store:
            for name, filters in CASES.items():
                listing = partial(read, store, float(options.deliveries), filters)
                times = [processor_time(listing) for _ in range(options.rounds)]
                table.add(name, spread(times))
                goals.at_most(f"{name} (ms)", 50, times, 1)
            times = [processor_time(lambda: store.ask(store.lists.dead_groups(None))) for _ in range(options.rounds)]
            table.add("dead letters in groups", spread(times))
            goals.at_most("dead letters in groups (ms)", 200, times, 1)
    table.show()
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
