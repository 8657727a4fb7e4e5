"""
Three servers on one PostgreSQL: kill -9 of one at random every two seconds, and reloads of all, under load.

Clients keep every request and its answer, handlers a line for each call. Afterwards the servers work off the rest, and
are ended; then `benchmarks.history` compares everything: nothing accepted is lost, no key was accepted twice, nothing
was handled twice but for attempts under way, and what ran is of a generation that was decided.
"""

from __future__ import annotations

import argparse
import http.client
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define, field

from benchmarks.clients import Client
from benchmarks.figures import Goals, Table, spread
from benchmarks.history import History, Loss, check, repeated, spreads, unsettled
from benchmarks.kills_traffic import under_way
from benchmarks.several import (
    PATIENCE,
    SETTINGS,
    Servers,
    document_of,
    generations,
    is_ready,
    left,
    read_history,
    write_requests,
)
from harn.testing.postgres import local_postgres
from harn.testing.server import StillWaiting, wait_until


@define(eq=False)
class Deployer:
    """
    Deploys editions, and asks servers at random to reload.

    :ivar editions: by generation, the edition that its report says it has.
    """

    servers: Servers
    goes_on: threading.Event
    pause: float
    editions: dict[int, str] = field(factory=dict)
    outcomes: Counter[str] = field(factory=Counter)
    seconds: list[float] = field(factory=list)
    refusals: list[str] = field(factory=list)

    def run(self) -> None:
        """Run until the end: deploy, pause, deploy again."""
        edition = 0
        while self.goes_on.is_set():
            time.sleep(random.uniform(0.0, 2.0 * self.pause))
            edition += 1
            self.reload(edition)

    def reload(self, edition: int) -> None:
        """Put one edition in place, reload it, and note the report."""
        self.servers.deploy(edition)
        server = self.servers.running[random.randrange(self.servers.count)]
        began = time.monotonic()
        answer = None
        with suppress(OSError, http.client.HTTPException, AssertionError):
            if server is not None:
                answer = server.reload()
        if answer is None:
            self.outcomes["cut off"] += 1
            return
        report = document_of(answer)
        self.outcomes[str(answer.status)] += 1
        if answer.status == 200:
            self.seconds.append(time.monotonic() - began)
            self.editions[int(report["generation"])] = str(edition)
        else:
            self.refusals.append(f"{report.get('stage')}: {report.get('error') or report.get('detail')}")


@define(eq=False)
class Killer:
    """Kills a server at random, again and again, and starts it again at once."""

    servers: Servers
    early: int = 0
    changing: threading.Lock = field(factory=threading.Lock)
    refused: Counter[str] = field(factory=Counter)

    def run(self, seconds: float, every: float) -> None:
        """Kill every so many seconds, for so long."""
        began = time.monotonic()
        count = 0
        while time.monotonic() - began < seconds:
            count += 1
            time.sleep(max(0.0, began + count * every - time.monotonic()))
            self.kill(random.randrange(self.servers.count))

    def supervise(self) -> None:
        """Start servers again that have ended by themselves, as a supervisor would; note the last line of each."""
        with self.changing:
            for place, server in enumerate(self.servers.running):
                if server is not None and server.process.poll() is not None:
                    server.stop()
                    self.refused[server.lines[-1] if server.lines else "nothing was said"] += 1
                    self.servers.keep_log(place)
                    self.servers.begin(place)

    @contextmanager
    def supervising(self) -> Iterator[None]:
        """Run `supervise` again and again for a while."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.1):
                self.supervise()

        with under_way(run):
            try:
                yield
            finally:
                ended.set()

    def kill(self, place: int) -> None:
        """Kill the server of a place, and start the next."""
        with self.changing:
            server = self.servers.running[place]
            assert server is not None
            self.early += not any("HTTP listener ready" in line for line in list(server.lines))
            life = self.servers.life(place)
            server.kill()
            self.servers.losses.append(Loss(life=life, at=time.time()))
            server.stop()
            self.servers.keep_log(place)
            self.servers.begin(place)


def finish(killer: Killer) -> tuple[float, list[str]]:
    """Wait until all serve one generation, and have worked off everything; return the seconds, and what went wrong."""
    began = time.monotonic()
    servers = killer.servers
    wrong: list[str] = []

    def all_serve() -> bool:
        killer.supervise()
        return all(server is not None and is_ready(server) for server in servers.running)

    try:
        wait_until(all_serve, "all servers to serve", PATIENCE)
        wait_until(lambda: len(set(generations(servers))) == 1, "one generation", 30.0)
        wait_until(lambda: left(servers.url) == 0, "everything to end", PATIENCE)
    except StillWaiting as error:
        wrong.append(f"{error}; generations {generations(servers)}; {left(servers.url)} deliveries left")
    took = time.monotonic() - began
    return took, [*wrong, *servers.stop_all()]


def show(history: History, killer: Killer, deployer: Deployer, took: float) -> None:
    """Print the figures."""
    statuses = Counter(each.status for each in history.requests)
    apart = [seconds * 1e3 for seconds in spreads(history).values()]
    again = list(repeated(history))
    ended = [seconds * 1e3 for one, _ in again if (seconds := unsettled(history, one)) is not None]
    table = Table("Faults of several servers", ("what", "figure"))
    kills = len(killer.servers.losses)
    for what, figure in (
        ("requests", f"{len(history.requests):,}"),
        ("their answers", ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))),
        ("kills (of these before the server served)", f"{kills} ({killer.early})"),
        ("starts that were refused", "; ".join(f"{what} ({count})" for what, count in killer.refused.items()) or "0"),
        ("servers fenced", f"{len(history.losses) - kills}"),
        ("reloads by answer", ", ".join(f"{what}: {count}" for what, count in sorted(deployer.outcomes.items()))),
        ("why some were refused", "; ".join(f"{what} ({n})" for what, n in Counter(deployer.refusals).most_common(5))),
        ("a reload that was answered with 200 (s)", spread(deployer.seconds, 2) if deployer.seconds else ""),
        ("generations decided", f"{len(history.decided)}"),
        ("first to last adoption (ms)", spread(apart) if apart else ""),
        ("deliveries", f"{len(history.stored):,}"),
        ("calls of handlers", f"{len(history.runs):,}"),
        ("repeated (of these had ended)", f"{len(again)} ({len(ended)})"),
        ("from such an end to the loss (ms)", spread(ended) if ended else ""),
        ("rest worked off in (s)", f"{took:.1f}"),
    ):
        table.add(what, figure)
    table.show()


def judge(history: History, wrong: Sequence[str]) -> Goals:
    """Check every rule; print what breaks one."""
    found: Mapping[str, Sequence[str]] = {**check(history), "at the end": wrong}
    goals = Goals()
    for what, problems in found.items():
        goals.at_most(what, 0, [float(len(problems))], 0)
        for each in problems[:5]:
            print(f"{what}: {each}")
    return goals


def measure(directory: Path, options: argparse.Namespace) -> Goals:
    """Run everything in a directory; print the figures; return the goals."""
    with local_postgres(SETTINGS) as postgres:
        servers = Servers(directory, options.servers, postgres.url())
        goes_on = threading.Event()
        goes_on.set()
        clients = [Client(servers, each, options.rate / options.clients, goes_on) for each in range(options.clients)]
        deployer = Deployer(servers, goes_on, options.pause)
        killer = Killer(servers)
        try:
            servers.start_all()
            with killer.supervising(), under_way(*(each.run for each in clients), deployer.run):
                killer.run(options.seconds, options.every)
                goes_on.clear()
            took, wrong = finish(killer)
        finally:
            servers.close()
        requests = [each for client in clients for each in client.requests]
        write_requests(directory / "requests.jsonl", requests)
        history = read_history(servers, requests, deployer.editions)
    show(history, killer, deployer, took)
    return judge(history, wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two kills")
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between two reloads")
    parser.add_argument("--rate", type=float, default=550.0, help="events a second, of all clients")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--keep", metavar="DIR", help="an empty directory to work in, which is kept")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        goals = measure(Path(options.keep or temporary).resolve(), options)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
