"""
Two hundred reloads of three servers on one PostgreSQL, with one of them failing at a random stage: all adopt or none.

One server, which may be the one that is asked, lacks a secret, cannot import the code, is killed or stopped while it
prepares or at any moment; or nothing is wrong, and then all must adopt. Clients see meanwhile which generation each
server has; `benchmarks.history` compares that, and the time from the first to the last adoption at rest is measured.
"""

from __future__ import annotations

import argparse
import http.client
import random
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from benchmarks.clients import Client
from benchmarks.faults import Killer, finish, judge
from benchmarks.figures import Goals, Table, spread
from benchmarks.history import Loss, spreads
from benchmarks.kills_traffic import under_way
from benchmarks.several import (
    SETTINGS,
    Servers,
    document_of,
    generations,
    is_ready,
    manifest,
    read_history,
    write_requests,
)
from harn.testing.manifests import trigger_text
from harn.testing.postgres import local_postgres
from harn.testing.server import StillWaiting, wait_until

NOTHING, SECRET, IMPORT, KILLED, STOPPED, KILLED_ANY = (
    "nothing",
    "its secret is missing",
    "the code cannot be imported",
    "killed while it prepares",
    "stopped while it prepares",
    "killed at any moment",
)
FAULTS = (NOTHING, SECRET, IMPORT, KILLED, STOPPED, KILLED_ANY)
ANSWERED = 90.0
"""Seconds in which a reload is answered, or cut off."""
AGREED = 20.0
"""Seconds after which all servers must serve the same, if one of them was killed or stopped."""
_HEAD = '\n[orchestrator.reload]\ntimeout = "10s"\n'
_SECRET = "HARN_SECRET_GITHUB_EXTRA_FILE"
_IMPORTED = """

def _there(name):
    return os.path.join(os.path.dirname(os.environ["BENCHMARK_SEEN"]), name + "-" + LIFE.partition(".")[0])


if os.path.exists(_there("broken")):
    raise RuntimeError("broken here")
if os.path.exists(_there("hold")):
    open(_there("prepares"), "w").close()
    while os.path.exists(_there("hold")):
        time.sleep(0.005)
"""


@frozen
class Round:
    """One reload: what was wrong on which server, which was asked, and its answer; status 0 where none came."""

    fault: str
    victim: int
    asked: int
    before: int
    status: int
    report: Mapping[str, Any]

    def problem(self, after: int) -> str | None:
        """Return how the answer is contradicted by the generation ``after`` that all serve by now, or None."""
        new = int(self.report.get("generation", 0))
        if self.fault == NOTHING and self.status != 200:
            return f"nothing was wrong, and it failed: {self}"
        if self.fault in (SECRET, IMPORT) and self.status == 200:
            return f"it was adopted in spite of the fault: {self}"
        if self.status == 200 and after != new:
            return f"it was answered as adopted, and all serve {after}: {self}"
        if self.status not in (0, 200) and after != self.before:
            return f"it was answered as failed, and all serve {after}: {self}"
        return None


@define(eq=False)
class Rounds:
    """The reloads, one after the other."""

    servers: Servers
    killer: Killer
    problems: dict[str, list[str]] = field(factory=lambda: defaultdict(list))
    outcomes: dict[str, Counter[str]] = field(factory=lambda: defaultdict(Counter))
    editions: dict[int, str] = field(factory=dict)
    at_rest: set[int] = field(factory=set)
    seconds: list[float] = field(factory=list)

    def run(self, count: int) -> None:
        """Run so many."""
        for number in range(1, count + 1):
            before = self._agreed(f"before round {number}")
            done = self._round(number, before)
            after = self._agreed(f"after round {number}: {done}")
            problem = done.problem(after)
            if problem is not None:
                self.problems["answers that contradict the live generation"].append(problem)
            adopted = "adopted" if after != before else "not adopted"
            self.outcomes[done.fault][f"{done.status or 'no answer'}, {adopted}"] += 1
            if done.status == 200:
                self.editions[after] = str(number)
            if done.fault == NOTHING:
                self.at_rest.add(after)

    def _round(self, number: int, before: int) -> Round:
        """Reload, while one server fails; return the answer."""
        fault, victim = random.choice(FAULTS), random.randrange(self.servers.count)
        asked = random.randrange(self.servers.count)
        self.servers.deploy(number, _IMPORTED)
        self._prepare(fault, victim)
        answers: list[tuple[int, Mapping[str, Any]]] = []
        asking = threading.Thread(target=self._ask, args=(asked, answers), daemon=True)
        began = time.monotonic()
        asking.start()
        self._fail(fault, victim)
        asking.join(ANSWERED)
        if asking.is_alive():
            self.problems["reloads without an end"].append(f"{fault} on {victim}, asked of {asked}")
        elif fault == NOTHING:
            self.seconds.append(time.monotonic() - began)
        self._mend(victim)
        status, report = answers[0] if answers else (0, {})
        return Round(fault, victim, asked, before, status, report)

    def _file(self, name: str, place: int) -> Path:
        return self.servers.directory / f"{name}-{place}"

    def _prepare(self, fault: str, victim: int) -> None:
        if fault == SECRET:
            self._file("secret", victim).unlink()
        if fault == IMPORT:
            self._file("broken", victim).touch()
        if fault in (KILLED, STOPPED):
            self._file("hold", victim).touch()

    def _fail(self, fault: str, victim: int) -> None:
        """Kill or stop the server when its moment has come; one that was stopped continues later."""
        server = self.servers.running[victim]
        assert server is not None
        if fault in (KILLED, STOPPED):
            with suppress(StillWaiting):
                wait_until(self._file("prepares", victim).exists, "it to prepare", 8.0)
        if fault == KILLED_ANY:
            time.sleep(random.uniform(0.0, 0.6))
        if fault in (KILLED, KILLED_ANY):
            self._file("hold", victim).unlink(missing_ok=True)  # or the next one would wait, too
            self.killer.kill(victim)
        if fault == STOPPED:
            # If the others fence it, that is when its attempts were under way.
            self.servers.losses.append(Loss(life=self.servers.life(victim), at=time.time()))
            server.signal(signal.SIGSTOP)
            self._file("hold", victim).unlink()
            time.sleep(random.choice((0.5, 3.0, 7.0)))
            server.signal(signal.SIGCONT)

    def _mend(self, victim: int) -> None:
        for name in ("hold", "broken", "prepares"):
            self._file(name, victim).unlink(missing_ok=True)
        self._file("secret", victim).write_text("extra")

    def _ask(self, asked: int, answers: list[tuple[int, Mapping[str, Any]]]) -> None:
        server = self.servers.running[asked]
        assert server is not None
        with suppress(OSError, http.client.HTTPException, AssertionError):
            answer = server.reload()
            answers.append((answer.status, document_of(answer)))

    def _agreed(self, when: str) -> int:
        """Wait until all servers serve the same generation, and return it; reload once if that does not come."""
        for patience, is_last in ((AGREED, False), (3 * AGREED, True)):
            with suppress(StillWaiting):
                return wait_until(self._common, "all to serve the same", patience)
            if not is_last:
                found = f"{generations(self.servers)} {when}; starts refused: {dict(self.killer.refused)}"
                self.problems["servers that did not agree until another reload"].append(found)
                for server in self.servers.running:
                    if server is not None and is_ready(server):
                        server.reload("?force=true")
                        break
        raise StillWaiting(f"the servers serve {generations(self.servers)} {when}")

    def _common(self) -> int:
        self.killer.supervise()
        if not all(server is not None and is_ready(server) for server in self.servers.running):
            return 0
        found = set(generations(self.servers))
        return found.pop() if len(found) == 1 else 0


def show(rounds: Rounds, apart: Sequence[float]) -> None:
    """Print the figures."""
    table = Table("Reloads of several servers", ("what was wrong on one", "reloads", "by answer, and what all did"))
    for fault in FAULTS:
        found = rounds.outcomes[fault]
        table.add(fault, str(found.total()), "; ".join(f"{what}: {count}" for what, count in sorted(found.items())))
    table.show()
    times = Table("At rest", ("what", "ms"))
    if rounds.seconds:
        times.add("until the report", spread([each * 1e3 for each in rounds.seconds]))
    if apart:
        times.add("from the first to the last adoption", spread([each * 1e3 for each in apart]))
    times.show()
    refused = rounds.killer.refused
    print(
        f"starts that were refused: {refused.total()}", *(f"  {count} times: {what}" for what, count in refused.items())
    )


def start(servers: Servers) -> None:
    """Start all, each with a file for its secret."""
    directory = servers.directory
    extra = trigger_text("guarded", handler="handlers:steady", secret="extra")
    (directory / "harn.toml").write_text(manifest(servers.url, _HEAD, extra))
    servers.deploy(0, _IMPORTED)
    for place in range(servers.count):
        (directory / f"secret-{place}").write_text("extra")
        servers.environ[place] = {_SECRET: str(directory / f"secret-{place}")}
    servers.start_all()


def measure(directory: Path, options: argparse.Namespace) -> Goals:
    """Run everything in a directory; print the figures; return the goals."""
    goes_on = threading.Event()
    goes_on.set()
    with local_postgres(SETTINGS) as postgres:
        servers = Servers(directory, options.servers, postgres.url())
        rounds = Rounds(servers, Killer(servers))
        clients = [Client(servers, each, options.rate, goes_on, only=each) for each in range(options.servers)]
        wrong = []
        try:
            start(servers)
            with under_way(*(each.run for each in clients)):
                try:
                    rounds.run(options.reloads)
                except StillWaiting as error:
                    wrong.append(str(error))
                finally:
                    goes_on.clear()
            wrong += finish(rounds.killer)[1]
        finally:
            servers.close()
        requests = [each for client in clients for each in client.requests]
        write_requests(directory / "requests.jsonl", requests)
        history = read_history(servers, requests, rounds.editions)
    apart = [seconds for generation, seconds in spreads(history).items() if generation in rounds.at_rest]
    show(rounds, apart)
    goals = judge(history, [*wrong, *(f"{what}: {each}" for what, found in rounds.problems.items() for each in found)])
    if apart:
        goals.at_most("first to last adoption at rest, at most (ms)", 250, [max(apart) * 1e3], 0)
    return goals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks agreement", description=__doc__)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=100.0, help="events a second, to each server")
    parser.add_argument("--keep", metavar="DIR", help="an empty directory to work in, which is kept")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        goals = measure(Path(options.keep or temporary).resolve(), options)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
