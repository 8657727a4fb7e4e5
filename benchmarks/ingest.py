"""
Deliveries a second: accepted and durable; accepted, handled and settled; with many triggers; on one connection.

Each round starts every case, then loads them in turn in short slices, in an order that changes, and each figure is
compared with the bare Klein route's of the same slice. Rates vary with the other load of the machine; the processor
time of a request hardly does.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

from attrs import frozen

from benchmarks.cores import cpu_seconds
from benchmarks.figures import Goals, Table, spread
from benchmarks.load import CONNECTIONS
from benchmarks.subjects import BLOCKING, HEAD, ONE_AT_A_TIME, Harn, bare_klein, harn_server, starlette_peer
from benchmarks.wrk import generator, saturate

KLEIN = "bare Klein"
PEER = "Starlette, durable"
ACCEPTED = "accepted, durable"
CLAIMED = "accepted, durable, claimed"
SETTLED = "accepted, handled, settled"
CROWD = "accepted, handled, settled, {:,} connections"
MANY = "accepted, durable, {:,} triggers"
KLEIN_ALONE = "bare Klein, 1 connection"
ALONE = "accepted, durable, 1 connection"
CASES = ("accepted", "settled", "crowd", "triggers", "alone")
MANY_CONNECTIONS = 512
FEW_TRIGGERS, MANY_TRIGGERS = 10, 10_000
WARM_UP = 1.0


@frozen(kw_only=True)
class Measured:
    """
    One case in one slice.

    :ivar rate: a second: answers, or, where deliveries are handled, settled deliveries.
    :ivar cpu: microseconds of the server and its children for each of them.
    :ivar p50: milliseconds, of answers; so is ``p99``.
    :ivar left: accepted and not yet settled when the load ended; ``backlog``: as a share of what was accepted.
    :ivar overall: settled a second, from the first request to the last settlement.
    """

    rate: float
    cpu: float
    p50: float
    p99: float
    failed: int
    left: int | None = None
    backlog: float | None = None
    overall: float | None = None


def measure_answers(subject: Any, seconds: float, route: int = 0, connections: int = CONNECTIONS) -> Measured:
    """Measure how many requests are answered."""
    url = subject.route(route)
    before = cpu_seconds(subject.pid)
    result = saturate(url, seconds, connections)
    used = cpu_seconds(subject.pid) - before
    return Measured(
        rate=result.rate, cpu=used / max(1, result.answered) * 1e6, p50=result.p50, p99=result.p99, failed=result.failed
    )


def measure_settled(subject: Harn, seconds: float, connections: int = CONNECTIONS) -> Measured:
    """Measure how many deliveries are settled while the load lasts, and until nothing is left."""
    url = subject.route()
    before, cpu, began = subject.progress(), cpu_seconds(subject.pid), time.perf_counter()
    result = saturate(url, seconds, connections)
    after, elapsed = subject.progress(), time.perf_counter() - began
    subject.wait_done()
    whole, used = time.perf_counter() - began, cpu_seconds(subject.pid) - cpu
    accepted = after.accepted - before.accepted
    return Measured(
        rate=(after.done - before.done) / elapsed,
        cpu=used / max(1, accepted) * 1e6,
        p50=result.p50,
        p99=result.p99,
        failed=result.failed,
        left=after.accepted - after.done,
        backlog=(after.accepted - after.done) / max(1, accepted),
        overall=accepted / whole,
    )


@frozen
class Case:
    """A subject to start, and how to measure it."""

    start: Callable[[], AbstractContextManager[Any]]
    measure: Callable[[Any, float], Measured]


def held_back(triggers: int, extra: str = "") -> Callable[[], AbstractContextManager[Harn]]:
    """Return a server that accepts and hands on nothing: its one handler at a time never returns."""
    return partial(harn_server, triggers, BLOCKING, ONE_AT_A_TIME, 'timeout = "1h"\n' + extra)


def cases(names: Sequence[str]) -> dict[str, Case]:
    """Return the cases by name; ``names`` picks among `CASES`. Starlette is compared where it is installed."""
    found = {KLEIN: Case(bare_klein, measure_answers)}
    if "accepted" in names:
        if importlib.util.find_spec("starlette") and importlib.util.find_spec("uvicorn"):
            found[PEER] = Case(starlette_peer, measure_answers)
        found[ACCEPTED] = Case(held_back(FEW_TRIGGERS), measure_answers)
        found[CLAIMED] = Case(held_back(FEW_TRIGGERS, 'dedupe_key = "event.dedupe_key"\n'), measure_answers)
    if "triggers" in names:
        for count in (FEW_TRIGGERS, MANY_TRIGGERS):
            found[MANY.format(count)] = Case(held_back(count), partial(measure_answers, route=count - 1))
    if "settled" in names:
        found[SETTLED] = Case(partial(harn_server, head=HEAD), measure_settled)
    if "crowd" in names:
        measure_many = partial(measure_settled, connections=MANY_CONNECTIONS)
        found[CROWD.format(MANY_CONNECTIONS)] = Case(partial(harn_server, head=HEAD), measure_many)
    if "alone" in names:
        found[KLEIN_ALONE] = Case(bare_klein, partial(measure_answers, connections=1))
        found[ALONE] = Case(held_back(FEW_TRIGGERS), partial(measure_answers, connections=1))
    return found


def measure(chosen: dict[str, Case], rounds: int, slices: int, seconds: float) -> dict[str, list[Measured]]:
    """Start every case in each round, then load them in turn, one at a time, slice by slice."""
    results: dict[str, list[Measured]] = defaultdict(list)
    for number in range(rounds):
        with ExitStack() as running:
            subjects = {name: running.enter_context(case.start()) for name, case in chosen.items()}
            for name, subject in subjects.items():
                chosen[name].measure(subject, WARM_UP)
            for piece in range(slices):
                names = list(chosen)
                random.Random(number * slices + piece).shuffle(names)
                for name in names:
                    results[name].append(chosen[name].measure(subjects[name], seconds))
        rates = ", ".join(f"{name} {results[name][-1].rate:,.0f}" for name in chosen)
        print(f"round {number + 1}: {rates}", flush=True)
    return results


def ratios(
    results: dict[str, list[Measured]], name: str, other: str, figure: Callable[[Measured], float | None]
) -> list[float]:
    """Return a figure of one case over that of another, round by round."""
    pairs = zip(results[name], results[other], strict=True)
    return [(figure(mine) or 0.0) / max(1e-9, figure(theirs) or 0.0) for mine, theirs in pairs]


def show(results: dict[str, list[Measured]]) -> None:
    """Print the measurements."""
    table = Table("Deliveries", ("case", "a second", "x Klein", "CPU us", "CPU x Klein", "p50 ms", "p99 ms", "failed"))
    for name, measured in results.items():
        table.add(
            name,
            spread([each.rate for each in measured], 0),
            spread(ratios(results, name, KLEIN, lambda each: each.rate), 2),
            spread([each.cpu for each in measured], 0),
            spread(ratios(results, name, KLEIN, lambda each: each.cpu), 2),
            spread([each.p50 for each in measured]),
            spread([each.p99 for each in measured]),
            str(sum(each.failed for each in measured)),
        )
    table.show()
    for name, measured in results.items():
        if measured[0].overall is not None:
            print(f"\n  {name}: left when the load ended: {spread([100 * (e.backlog or 0) for e in measured])} %")
            print(f"  {name}: from the first request to the last: {spread([e.overall or 0 for e in measured], 0)}/s,")
            pairs = zip(measured, results[KLEIN], strict=True)
            print(f"    x Klein {spread([(mine.overall or 0) / klein.rate for mine, klein in pairs], 2)}")


def judge(results: dict[str, list[Measured]]) -> Goals:
    """Compare the measurements with the goals."""
    goals = Goals()
    if ACCEPTED in results:
        rates = ratios(results, ACCEPTED, KLEIN, lambda each: each.rate)
        goals.at_least("accepted and durable / bare Klein", 2.0, rates)
        tails = ratios(results, ACCEPTED, KLEIN, lambda each: each.p99)
        goals.at_most("p99 of accepting / p99 of bare Klein", 1.0, tails)
        claimed = ratios(results, CLAIMED, ACCEPTED, lambda each: each.rate)
        goals.at_least("accepted and claimed / accepted", 0.95, claimed)
    if PEER in results:
        rates = ratios(results, ACCEPTED, PEER, lambda each: each.rate)
        goals.at_least("accepted and durable / Starlette, durable", 1.3, rates)
    if SETTLED in results:
        goals.at_most("% left when the load ends", 1.0, [100 * (each.backlog or 0.0) for each in results[SETTLED]])
        if ACCEPTED in results:
            rates = ratios(results, SETTLED, ACCEPTED, lambda each: each.rate)
            goals.at_least("settled while the load lasts / accepted", 0.8, rates)
    if CROWD.format(MANY_CONNECTIONS) in results:
        left = [(each.left or 0) / MANY_CONNECTIONS for each in results[CROWD.format(MANY_CONNECTIONS)]]
        goals.at_most("deliveries left when the load ends / connections", 2.0, left)
    if ALONE in results:
        waits = ratios(results, ALONE, KLEIN_ALONE, lambda each: each.p50)
        goals.at_most("p50 of accepting / of bare Klein, 1 connection", 2.0, waits)
    if MANY.format(MANY_TRIGGERS) in results:
        compared = ratios(results, MANY.format(MANY_TRIGGERS), MANY.format(FEW_TRIGGERS), lambda each: each.rate)
        goals.at_least("accepted with 10,000 triggers / with 10", 0.95, compared)
    return goals


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ingest", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=5, help="in each round")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in each slice, for each case")
    parser.add_argument("--case", action="append", choices=CASES, help="only this one")
    options = parser.parse_args(arguments)
    print(f"load: {generator()}")
    results = measure(cases(options.case or CASES), options.rounds, options.slices, options.seconds)
    show(results)
    goals = judge(results)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
