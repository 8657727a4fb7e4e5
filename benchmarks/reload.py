"""
The cost of a reload: the time to its report, and its effect on requests.

Beside each manifest stands the time of ``tomllib.loads`` for the same text, in the same round and on the server's core.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Callable, Sequence
from statistics import median

from attrs import frozen

from benchmarks.cores import SERVER, on_core
from benchmarks.figures import Goals, Table, spread
from benchmarks.heartbeat import Beating, Beats
from benchmarks.load import CONNECTIONS, Result, Running
from benchmarks.subjects import BLOCKING, ONE_AT_A_TIME, Harn, harn_server, replace
from benchmarks.watched import LAUNCHER, Held, held
from harn.testing.server import Answer, ServerProcess

FEW_TRIGGERS, MANY_TRIGGERS = 10, 10_000
PAUSE = 0.5
"""Seconds between two reloads."""
LOADED = 8
"""Reloads in each round under load."""
IDLE = 6
"""Orders of each kind without load."""
ONE, CODE = "reload of 1 change", "code of all triggers"
LONGEST_GAP, LONGEST_OF_CODE, LONGEST_TURN = 20.0, 30.0, 10.0
"""Milliseconds: of a heartbeat's gap, the same for `CODE`; of processor time in one turn or collection."""
LIMIT = 600.0
"""Seconds for which a heartbeat lasts at most that is stopped before."""


@frozen(kw_only=True)
class Timed:
    """
    Orders of one kind, without load.

    :ivar times: how long each took (ms); ``beats``: the heartbeat meanwhile; ``held``: what held the reactor longest.
    """

    times: list[float]
    beats: Beats
    held: Held


@frozen(kw_only=True)
class Round:
    """
    One round with one number of triggers. Times in milliseconds.

    :ivar parse: what tomllib takes for the text.
    :ivar idle: orders of each kind without load, the first of them reloads of one changed trigger.
    :ivar loaded: from the order to the report of such reloads under load.
    :ivar quiet: the load without reloads; ``busy``: with them.
    :ivar still_beats: the heartbeat without reloads or load: what the machine alone does to it.
    :ivar quiet_beats: the heartbeat under load, without reloads; ``loaded_beats``: with them.
    """

    parse: float
    idle: dict[str, Timed]
    loaded: list[float]
    quiet: Result
    busy: Result
    still_beats: Beats
    quiet_beats: Beats
    loaded_beats: Beats


def parse_time(text: str) -> float:
    """Return the time of tomllib, the best of three (ms)."""
    times = []
    with on_core(SERVER):
        for _ in range(3):
            began = time.perf_counter()
            tomllib.loads(text)
            times.append((time.perf_counter() - began) * 1e3)
    return min(times)


class Reloads:
    """Reloads one server, each time with another single trigger changed; or orders something else of it."""

    def __init__(self, subject: Harn) -> None:
        self._subject = subject
        self._count = 0

    def one(self) -> float:
        """Change a trigger, reload; give the time from the order to the report (ms)."""
        self._count += 1
        changed = self._count % self._subject.triggers
        self._subject.write_manifest(changed)
        began = time.perf_counter()
        answer = self._subject.server.reload()
        took = (time.perf_counter() - began) * 1e3
        assert answer.status == 200, answer
        summary = answer.json()["summary"]
        assert f"t{changed}" in summary["modified"], summary["modified"]
        return took

    def plan(self) -> float:
        """Request the plan of a reload with another trigger changed; return the time (ms)."""
        self._count += 1
        changed = self._count % self._subject.triggers
        self._subject.write_manifest(changed)
        took, answer = self._asked("POST", "/admin/plan")
        assert f"t{changed}" in answer.json()["plan"]["triggers"], answer
        return took

    def diff(self) -> float:
        """Request the differences between the last two generations; return the time (ms)."""
        live = self._subject.server.generation()["generation"]
        took, answer = self._asked("GET", f"/admin/diff?from={live - 1}&to={live}")
        assert answer.json()["changes"], answer
        return took

    def roll_back(self) -> float:
        """Adopt the content before the live one; give how long that took (ms)."""
        took, answer = self._asked("POST", "/admin/rollback")
        assert answer.json()["summary"]["modified"], answer
        return took

    def edit_code(self) -> float:
        """Change the module that all handlers are in, and reload: all triggers are modified; give the time (ms)."""
        self._count += 1
        replace(self._subject.handlers, f"{BLOCKING}\nEDIT = {self._count}\n")
        took, answer = self._asked("POST", "/admin/reload")
        assert len(answer.json()["summary"]["modified"]) == self._subject.triggers, answer
        return took

    def _asked(self, method: str, target: str) -> tuple[float, Answer]:
        began = time.perf_counter()
        answer = self._subject.server.admin(method, target)
        took = (time.perf_counter() - began) * 1e3
        assert answer.status == 200, answer
        return took, answer


def repeated(order: Callable[[], float], count: int) -> list[float]:
    """Return an order so many times, with pauses; give each time (ms)."""
    times = []
    for _ in range(count):
        time.sleep(PAUSE)
        times.append(order())
    return times


def timed(server: ServerProcess, order: Callable[[], float]) -> Timed:
    """Return an order `IDLE` times, beside a heartbeat."""
    held(server)
    beating = Beating(server.url, LIMIT)
    times = repeated(order, IDLE)
    return Timed(times=times, beats=beating.stop(), held=held(server))


def measure(subject: Harn, reloads: Reloads) -> Round:
    """Measure one round on a server that runs."""
    server, url = subject.server, subject.route(subject.triggers - 1)
    span = LOADED * (PAUSE + 0.15) + 1.0
    Running(url, 1.0).result()
    still_beats = Beating(server.url, IDLE * PAUSE).result()
    idle = {
        ONE: timed(server, reloads.one),
        "plan of 1 change": timed(server, reloads.plan),
        "diff of two generations": timed(server, reloads.diff),
        "rollback": timed(server, reloads.roll_back),
        CODE: timed(server, reloads.edit_code),
    }
    running, beating = Running(url, span), Beating(server.url, span)
    quiet, quiet_beats = running.result(), beating.result()
    running, beating = Running(url, span), Beating(server.url, span)
    loaded = repeated(reloads.one, LOADED)
    return Round(
        parse=parse_time(subject.text()),
        idle=idle,
        loaded=loaded,
        quiet=quiet,
        busy=running.result(),
        still_beats=still_beats,
        quiet_beats=quiet_beats,
        loaded_beats=beating.result(),
    )


def show(count: int, rounds: Sequence[Round]) -> None:
    """Print the measurements."""
    parse = [each.parse for each in rounds]
    table = Table(f"Reload of 1 of {count:,} triggers, {CONNECTIONS} connections (ms)", ("what", "figure", "x tomllib"))

    def add(what: str, values: Sequence[float]) -> None:
        table.add(what, spread(values), spread([value / each for value, each in zip(values, parse, strict=True)], 2))

    add("tomllib.loads of the same text", parse)
    add("report, idle", [median(each.idle[ONE].times) for each in rounds])
    add("report, idle, slowest", [max(each.idle[ONE].times) for each in rounds])
    add("report, under load", [median(each.loaded) for each in rounds])
    add("report, under load, slowest", [max(each.loaded) for each in rounds])
    for what, values in (
        ("p99 of requests, quiet", [each.quiet.p99 for each in rounds]),
        ("p99 of requests, during reloads", [each.busy.p99 for each in rounds]),
        ("slowest request, quiet", [each.quiet.longest for each in rounds]),
        ("slowest request, during reloads", [each.busy.longest for each in rounds]),
        ("heartbeat's longest gap, neither reloads nor load", [each.still_beats.gap for each in rounds]),
        ("heartbeat's longest gap, load without reloads", [each.quiet_beats.gap for each in rounds]),
        ("heartbeat's longest gap, reloads under load", [each.loaded_beats.gap for each in rounds]),
    ):
        table.add(what, spread(values), "")
    failed = sum(each.busy.failed + each.quiet.failed + each.loaded_beats.failed for each in rounds)
    table.add("requests failed, of all", f"{failed} of {sum(e.busy.answered + e.quiet.answered for e in rounds):,}", "")
    table.show()
    show_kinds(count, rounds)


def show_kinds(count: int, rounds: Sequence[Round]) -> None:
    """Print the effect of each kind of order on a server without load."""
    table = Table(
        f"Orders of each kind on {count:,} triggers, without load (ms)",
        ("order", "report", "heartbeat's longest gap", "longest turn (CPU)", "longest collection elsewhere (CPU)"),
    )
    for kind in rounds[0].idle:
        some = [each.idle[kind] for each in rounds]
        table.add(
            *(kind, spread([took for each in some for took in each.times])),
            *(spread([each.beats.gap for each in some]), spread([each.held.turn for each in some])),
            spread([each.held.collection for each in some]),
        )
    table.show()


def beyond(beats: Beats, before: Beats, limit: float) -> float:
    """Return by how much the longest gap exceeds both ``limit`` and the longest one without orders (ms)."""
    return max(0.0, beats.gap - max(limit, before.gap))


def judge(goals: Goals, count: int, rounds: Sequence[Round]) -> None:
    """Compare the measurements with the goals."""
    idle = [took for each in rounds for took in each.idle[ONE].times]
    loaded = [took for each in rounds for took in each.loaded]
    goals.at_most(f"{count:,} triggers: report, idle (ms)", 25, idle, 1)
    if count == MANY_TRIGGERS:
        goals.at_most(f"{count:,} triggers: report, under load (ms)", 60, loaded, 1)
    tails = [each.busy.p99 / each.quiet.p99 for each in rounds]
    goals.at_most(f"{count:,} triggers: p99 during reloads / quiet", 1.5, tails)
    for kind in rounds[0].idle:
        limit = LONGEST_OF_CODE if kind == CODE else LONGEST_GAP
        gaps = [beyond(each.idle[kind].beats, each.still_beats, limit) for each in rounds]
        goals.at_most(f"{count:,} triggers: gaps beyond {limit:g} ms and those before, {kind} (ms)", 0, gaps, 1)
        turns = [max(each.idle[kind].held.turn, each.idle[kind].held.collection) for each in rounds]
        goals.at_most(f"{count:,} triggers: longest turn or collection, {kind} (ms of CPU)", LONGEST_TURN, turns, 1)
    gaps = [beyond(each.loaded_beats, each.quiet_beats, LONGEST_GAP) for each in rounds]
    goals.at_most(f"{count:,} triggers: gaps beyond {LONGEST_GAP:g} ms and those before, load (ms)", 0, gaps, 1)
    goals.at_most(f"{count:,} triggers: requests failed", 0, [float(each.busy.failed) for each in rounds], 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reload", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--triggers", type=int, action="append", help="how many; may be given several times")
    options = parser.parse_args(arguments)
    goals = Goals()
    for count in options.triggers or (FEW_TRIGGERS, MANY_TRIGGERS):
        rounds = []
        for number in range(options.rounds):
            with harn_server(count, BLOCKING, ONE_AT_A_TIME, launcher=LAUNCHER) as subject:
                rounds.append(measure(subject, Reloads(subject)))
            print(f"{count:,} triggers, round {number + 1}: idle {spread(rounds[-1].idle[ONE].times)} ms", flush=True)
        show(count, rounds)
        judge(goals, count, rounds)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
