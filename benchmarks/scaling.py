"""
One, two and four servers on one PostgreSQL: the cost of a delivery in processor time of servers and of PostgreSQL, and
in transactions. Each server has the same load of its own, so that both should stay the same.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from benchmarks.cores import cpu_seconds
from benchmarks.figures import Goals, Table, spread
from benchmarks.load import Running
from benchmarks.postgres_work import Work, work_of
from benchmarks.several import PATIENCE, Servers, left
from benchmarks.statements import DURABLE
from benchmarks.subjects import QUICK
from harn.testing.manifests import trigger_text
from harn.testing.postgres import local_postgres

COUNTS = (1, 2, 4)
FLAT = 1.1
"""How much more a delivery may cost with several servers than with one."""


@frozen
class Cost:
    """
    A delivery's cost.

    :ivar rate: deliveries a second, of all servers. ``servers``, ``postgres``: microseconds of processor time.
    """

    rate: float
    servers: float
    postgres: float
    transactions: float


def measure(count: int, options: argparse.Namespace) -> Cost:
    """Load so many servers until everything is done."""
    with local_postgres(DURABLE) as postgres, tempfile.TemporaryDirectory() as temporary:
        url = postgres.url()
        servers = Servers(Path(temporary), count, url)
        (servers.directory / "harn.toml").write_text(
            f'[package]\nname = "benchmark"\n\n[orchestrator]\nstore = "{url}"\n\n{trigger_text("gh")}'
        )
        (servers.directory / "handlers.py").write_text(QUICK)
        try:
            servers.start_all()
            _load(servers, 2.0, options.connections)  # what runs only once, such as imports, is done
            before, spent = work_of(postgres.pid, url), _spent(servers)
            began = time.monotonic()
            done = _load(servers, options.seconds, options.connections)
            took = time.monotonic() - began
            work = work_of(postgres.pid, url).since(before)
            return _cost(done, took, _spent(servers) - spent, work)
        finally:
            servers.close()


def _spent(servers: Servers) -> float:
    return sum(cpu_seconds(server.pid) for server in servers.running if server is not None)


def _load(servers: Servers, seconds: float, connections: int) -> int:
    """Load each server; wait until everything is done; return how many deliveries that were."""
    loads = [
        Running(f"{server.url}/triggers/gh", seconds, connections) for server in servers.running if server is not None
    ]
    answered = sum(load.result().answered for load in loads)
    ends = time.monotonic() + PATIENCE
    while left(servers.url):  # seldom asked: a connection costs PostgreSQL as much as some ten deliveries
        assert time.monotonic() < ends, "the servers did not work off the load"
        time.sleep(0.5)
    return answered


def _cost(done: int, took: float, seconds: float, work: Work) -> Cost:
    return Cost(done / took, seconds / done * 1e6, work.seconds / done * 1e6, work.transactions / done)


def show(costs: dict[int, list[Cost]]) -> Goals:
    """Print the figures; return the goals."""
    columns = ("servers", "deliveries a second", "us of the servers", "us of PostgreSQL", "transactions")
    table = Table("A delivery on several servers", columns)
    for count, found in costs.items():
        table.add(
            str(count),
            spread([each.rate for each in found], 0),
            spread([each.servers for each in found], 0),
            spread([each.postgres for each in found], 0),
            spread([each.transactions for each in found], 4),
        )
    table.show()
    goals = Goals()
    first = costs[COUNTS[0]]
    for count in COUNTS[1:]:
        pairs = list(zip(costs[count], first, strict=True))
        both = [(now.servers + now.postgres) / (one.servers + one.postgres) for now, one in pairs]
        goals.at_most(f"processor time with {count} against 1", FLAT, both)
        goals.at_most(
            f"transactions with {count} against 1", FLAT, [now.transactions / one.transactions for now, one in pairs]
        )
    return goals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16, help="to each server")
    options = parser.parse_args(arguments)
    costs: dict[int, list[Cost]] = {count: [] for count in COUNTS}
    for _ in range(options.rounds):
        for count in COUNTS:
            costs[count].append(measure(count, options))
    goals = show(costs)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
