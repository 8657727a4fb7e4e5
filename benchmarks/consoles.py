"""
Consoles: how long deliveries take to be accepted with three consoles open, against none, and pages of 10,000 triggers.

The consoles look at three pages, each by its stream, as browsers do. In each round the load runs twice on one server:
with them and without, in turns first.
"""

from __future__ import annotations

import argparse
import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlencode, urlsplit

from benchmarks.cores import LOAD, cpu_seconds, on_core
from benchmarks.figures import Goals, Table, spread
from benchmarks.load import Result, Running
from benchmarks.subjects import Harn, harn_server
from harn.console.overview import SHARE
from harn.testing.server import API_KEY

PAGES = ("/console/", "/console/deliveries", "/console/triggers/t0")
MANY = 10_000
MOST_RATIO = 1.1
MOST_MS = 300.0


class Console:
    """A console that has signed in, and counts what comes on its stream."""

    def __init__(self, subject: Harn) -> None:
        parts = urlsplit(subject.server.url)
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port or 80)
        self.events = 0
        self.bytes = 0
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        connection.request("POST", "/console/login", urlencode({"key": API_KEY}), form)
        answer = connection.getresponse()
        assert answer.status == 303, answer.status
        self._cookie = {"Cookie": str(answer.getheader("Set-Cookie")).partition(";")[0]}
        connection.close()

    def get(self, path: str) -> http.client.HTTPResponse:
        """Request a page; its body is still to be read."""
        connection = http.client.HTTPConnection(*self._address, timeout=60)
        connection.request("GET", path, headers=self._cookie)
        answer = connection.getresponse()
        assert answer.status == 200, (path, answer.status)
        return answer

    def milliseconds(self, path: str) -> float:
        """Return how long a page takes."""
        began = time.perf_counter()
        self.get(path).read()
        return (time.perf_counter() - began) * 1e3

    def follow(self, path: str, is_over: threading.Event) -> None:
        """Read the stream of a page until it has ended."""
        answer = self.get(f"{path}?stream=1")
        while not is_over.is_set():
            line = answer.readline()
            if not line:
                return
            self.bytes += len(line)
            self.events += line == b"\n"
        answer.close()


@contextmanager
def open_consoles(subject: Harn) -> Iterator[list[Console]]:
    """Open a console on each page, and end their streams afterwards."""
    is_over = threading.Event()
    with on_core(LOAD):
        consoles = [Console(subject) for _ in PAGES]
        threads = [
            threading.Thread(target=console.follow, args=(path, is_over), daemon=True)
            for console, path in zip(consoles, PAGES, strict=True)
        ]
        for each in threads:
            each.start()
        time.sleep(2.0)
        yield consoles
        is_over.set()


def load(subject: Harn, seconds: float) -> Result:
    """Load a trigger, and wait until all of it is done."""
    result = Running(subject.route(), seconds).result()
    assert result.failed == 0, result
    subject.wait_done()
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the number of goals missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks consoles", description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--rounds", type=int, default=5, help="of the load; 0 for none")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--triggers", type=int, default=MANY, help="of the pages; 0 for none")
    options = parser.parse_args(arguments)
    goals = Goals()
    if options.rounds:
        compare_loads(options.rounds, options.seconds, goals)
    if options.triggers:
        time_pages(options.triggers, goals)
    goals.show()
    return goals.missed


def compare_loads(rounds: int, seconds: float, goals: Goals) -> None:
    """Measure the load with consoles and without, in one server."""
    table = Table("Milliseconds until accepted", ("consoles", "p50", "p99", "a second", "events", "KiB"))
    ratios: list[float] = []
    with harn_server() as subject:
        load(subject, 2.0)
        for number in range(rounds):
            found: dict[bool, Result] = {}
            for has_consoles in (number % 2 == 0, number % 2 == 1):
                events = size = 0
                if has_consoles:
                    with open_consoles(subject) as consoles:
                        found[True] = load(subject, seconds)
                        events, size = sum(each.events for each in consoles), sum(each.bytes for each in consoles)
                else:
                    found[False] = load(subject, seconds)
                result = found[has_consoles]
                cells = (f"{result.p50:.1f}", f"{result.p99:.1f}", f"{result.rate:.0f}", str(events), str(size // 1024))
                table.add(str(len(PAGES) if has_consoles else 0), *cells)
                time.sleep(2.0)
            ratios.append(found[True].p99 / found[False].p99)
    table.show()
    goals.at_most("p99 with three consoles, of p99 with none", MOST_RATIO, ratios)


def time_pages(triggers: int, goals: Goals) -> None:
    """Measure the pages of a server with many triggers, each time with its state read again, and its processor time."""
    title = f"Milliseconds of pages of {triggers:,} triggers, their state read again"
    table = Table(title, ("page", "until it has come", "processor time"))
    with harn_server(triggers=triggers) as subject:
        console = Console(subject)
        for path in ("/console/triggers", "/console/triggers?q=t99", "/console/", "/console/triggers/t0"):
            took, used = list[float](), list[float]()
            for _ in range(4):
                time.sleep(2.0 + SHARE * max(took, default=100.0) / 1e3)  # so long is a reading shown again
                before = cpu_seconds(subject.pid)
                took.append(console.milliseconds(path))
                used.append((cpu_seconds(subject.pid) - before) * 1e3)
            table.add(path, spread(took[1:]), spread(used[1:]))
            if path == "/console/triggers":
                goals.at_most(f"page of {triggers:,} triggers (ms)", MOST_MS, took[1:], 0)
    table.show()
