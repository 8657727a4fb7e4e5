"""
PostgreSQL alone, driven with the statements of servers: the deliveries that it accepts and settles in a second.

Each driver is a process with one connection, as a server's writer is: a transaction accepts one batch, with its claims,
and settles the previous one, with its attempts. ``python -m benchmarks.statements PARAMETERS`` is one driver.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import Goals, Table, spread
from benchmarks.postgres_work import Work, work_of
from benchmarks.traffic import body
from harn.model.delivery import DONE, Acceptance, Attempt, Claim, NewDelivery, Settlement
from harn.store.postgres.address import Address
from harn.store.postgres.connection import PostgresEndpoint
from harn.store.postgres.database import PostgresDatabase
from harn.store.postgres.inbox import PostgresAccept
from harn.store.postgres.recovery import register
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.settling import PostgresSettle
from harn.store.store import Beat
from harn.testing.postgres import local_postgres

DAY = 86_400.0
DURABLE = ("fsync=on", "full_page_writes=on", "synchronous_commit=on", "autovacuum=on", "max_wal_size=4GB")


class _Wall:
    def seconds(self) -> float:
        return time.time()


class _NoSecrets:
    def resolve(self, reference: Any) -> bytes:
        raise AssertionError(f"no secret is asked for, got {reference}")


def _acceptance(name: str, content: bytes, now: float) -> Acceptance:
    new = NewDelivery(
        event_id=f"trigger_evt_{name}",
        trigger_id="gh",
        version=1,
        provider="github",
        kind="issues.opened",
        envelope=b'{"id": "%s", "dedupe_key": "%s"}' % (name.encode(), name.encode()) + b" " * 500,
        body=content,
        received_at=now,
        claim=Claim(scope="trigger:gh", key=name, expires_at=now + DAY),
    )
    return Acceptance(deliveries=(new,))


def _settlement(delivery_id: int, now: float) -> Settlement:
    attempt = Attempt(number=1, version=1, started_at=now - 0.01, completed_at=now, outcome="success")
    return Settlement(
        delivery_id=delivery_id, state=DONE, version=1, attempts=1, passed=True, attempt=attempt, result=b"null"
    )


def connect(url: str, directory: str, name: str) -> PostgresSession:
    """Connect as a server does, with a row of its own."""
    database = PostgresDatabase(PostgresEndpoint(Address.read(url), _NoSecrets()), directory, _Wall(), name)
    session = database.open()
    session.begin()
    incarnation = register(session, Beat.of_this_process(time.time()), name)
    session.commit()
    session.close()
    return database.reopen(incarnation)


def drive(session: PostgresSession, name: str, seconds: float, batch: int) -> int:
    """Accept and settle batches for so long; return how many deliveries were settled."""
    content = body()
    ends = time.monotonic() + seconds
    open_ids: list[int] = []
    done = count = 0
    while time.monotonic() < ends or open_ids:
        now = time.time()
        is_last = time.monotonic() >= ends
        accepts = [PostgresAccept(_acceptance(f"{name}-{count}-{each}", content, now)) for each in range(batch)]
        session.begin()
        if not is_last:
            PostgresAccept.write_all(session, accepts, now)
        if open_ids:
            PostgresSettle.write_all(session, [PostgresSettle([_settlement(each, now) for each in open_ids], now)], now)
        session.commit()
        done += len(open_ids)
        open_ids = [] if is_last else [unit.value[0] for unit in accepts]
        count += 1
    return done


class Driver:
    """A driver in a process of its own."""

    def __init__(self, url: str, directory: str, name: str, seconds: float, batch: int) -> None:
        given = json.dumps({"url": url, "directory": directory, "name": name, "seconds": seconds, "batch": batch})
        command = [sys.executable, "-m", "benchmarks.statements", given]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def start(self) -> None:
        """Start it, once it is connected."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> tuple[int, float]:
        """Wait for its end; return how many deliveries were settled, and in how many seconds."""
        output, _ = self._process.communicate()
        done, seconds = json.loads(output)
        return int(done), float(seconds)


def run_driver(given: dict[str, Any]) -> None:
    """Run one driver: print a line when it is connected, begin at a line, print the result."""
    session = connect(given["url"], given["directory"], given["name"])
    print(flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    done = drive(session, given["name"], given["seconds"], given["batch"])
    print(json.dumps([done, time.monotonic() - began]))
    session.close()


def measure(connections: int, seconds: float, batch: int) -> tuple[float, int, Work]:
    """Drive a fresh PostgreSQL; return deliveries a second, how many there were, and what that cost it."""
    with local_postgres(DURABLE) as postgres, tempfile.TemporaryDirectory() as directory:
        drivers = [Driver(postgres.url(), directory, f"d{each}", seconds, batch) for each in range(connections)]
        before = work_of(postgres.pid, postgres.url())
        for driver in drivers:
            driver.start()
        results = [driver.result() for driver in drivers]
        work = work_of(postgres.pid, postgres.url()).since(before)
    done = sum(count for count, _ in results)
    return sum(count / took for count, took in results), done, work


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks statements", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--batch", type=int, default=200, help="deliveries in one transaction")
    options = parser.parse_args(arguments)
    rates, costs, transactions = [], [], []
    for _ in range(options.rounds):
        rate, done, work = measure(options.connections, options.seconds, options.batch)
        rates.append(rate)
        costs.append(work.seconds / done * 1e6)
        transactions.append(work.transactions / done)
    table = Table("PostgreSQL alone", ("what", "figure"))
    table.add("accepts and settles a second", spread(rates, 0))
    table.add("PostgreSQL's processor for each (us)", spread(costs))
    table.add("transactions for each", spread(transactions, 4))
    table.show()
    goals = Goals()
    goals.at_least("accepts and settles a second", 10_000, rates, 0)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    run_driver(json.loads(sys.argv[1]))
