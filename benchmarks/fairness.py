"""
Fairness: how long one trigger's deliveries take from accepted to done, alone and beside one that is flooded.

The flooded trigger's handler sleeps for ten seconds, so that thousands of its deliveries wait the whole time.
"""

from __future__ import annotations

import argparse
import socket
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

from benchmarks.figures import Goals, Table, spread
from benchmarks.subjects import Harn, harn_server
from benchmarks.traffic import request_parts
from benchmarks.wrk import saturate

HANDLERS = '''"""Handlers of a benchmark."""

import asyncio


async def on_event(event, context):
    """Sleep for one trigger, return at once for the others."""
    if context.trigger_id == "t0":
        await asyncio.sleep(10.0)
'''
FLOODED, QUICK = 0, 1
FLOOD = 10_000
RATE = 50
"""Deliveries of the quick trigger in a second."""
MOST = 1.5


def main(arguments: Sequence[str]) -> int:
    """Run; give the number of goals missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fairness", description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    table = Table("Milliseconds from accepted to done", ("case", "p50", "p99", "deliveries"))
    ratios: list[float] = []
    for _ in range(options.rounds):
        with harn_server(triggers=2, handlers=HANDLERS) as subject:
            alone = measure(subject, options.seconds)
            flood(subject)
            beside = measure(subject, options.seconds)
            waiting = subject.progress()
            assert waiting.accepted - waiting.done > FLOOD // 2, waiting
        for name, found in (("alone", alone), (f"beside {FLOOD:,} that sleep", beside)):
            table.add(name, f"{quantile(found, 0.5):.2f}", f"{quantile(found, 0.99):.2f}", str(len(found)))
        ratios.append(quantile(beside, 0.99) / quantile(alone, 0.99))
    table.show()
    goals = Goals()
    goals.at_most("p99 beside the flood, of p99 alone", MOST, ratios)
    goals.show()
    print(f"\nratio in each round: {spread(ratios, 2)}")
    return goals.missed


def flood(subject: Harn) -> None:
    """Accept so many deliveries for the trigger that sleeps."""
    before = subject.progress().accepted
    while subject.progress().accepted - before < FLOOD:
        saturate(subject.route(FLOODED), 1.0)


def measure(subject: Harn, seconds: float) -> list[float]:
    """Post events at an even rate; return the milliseconds from accepted to done of each."""
    first = subject.progress().accepted
    url = urlsplit(subject.route(QUICK))
    assert url.hostname is not None
    before, after = request_parts(url.path, url.netloc)
    with closing(socket.create_connection((url.hostname, url.port or 80))) as connection:
        began = time.perf_counter()
        for number in range(int(seconds * RATE)):
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            connection.sendall(before + f"fair-{first}-{number}".encode() + after)
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200"), answer
    time.sleep(2.0)
    with closing(sqlite3.connect(f"file:{subject.server.state_dir}/events.sqlite?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT (settled_at - received_at) * 1000.0 FROM deliveries"
            " WHERE trigger_id = ? AND id > ? AND settled_at IS NOT NULL",
            (f"t{QUICK}", first),
        )
        return sorted(took for (took,) in rows)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the sorted values lies."""
    return values[min(len(values) - 1, int(share * len(values)))]
