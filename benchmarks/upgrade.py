"""
The cost of an upgrade in place: ``kill -USR2`` under load, repeated; no request may be refused, no delivery lost.

The new program starts on the core of the old one and takes its processor time from it: so the load is slower meanwhile.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from benchmarks.figures import Goals, Table, spread
from benchmarks.heartbeat import Beating, Beats
from benchmarks.load import Result, Running
from benchmarks.loss import accepted_ids, done_ids
from benchmarks.subjects import Harn, harn_server
from harn.testing.server import is_alive

LEAD = 1.0
"""Seconds of load before the signal."""
TAIL = 1.0
"""Seconds for which the load continues after the old program has ended."""
QUIET = 5.0
"""Seconds of the same load without an upgrade."""
IDLE = 3
"""Upgrades without load."""
LIMIT = 60.0
"""Seconds in which an upgrade must have ended."""


@frozen(kw_only=True)
class Upgraded:
    """
    The result of one upgrade. Times in milliseconds.

    :ivar handed_over: from the signal until the new program served; ``ended``: until the old one had ended.
    :ivar load: None without a load.
    """

    handed_over: float
    ended: float
    load: Result | None
    beats: Beats


def wait_for(condition: Callable[[], bool], what: str, began: float) -> float:
    """Wait, checking every 2 ms; return the time since ``began`` (ms)."""
    while not condition():
        assert time.perf_counter() - began < LIMIT, f"waited {LIMIT:g} s in vain for {what}"
        time.sleep(0.002)
    return (time.perf_counter() - began) * 1e3


def serving(subject: Harn) -> int:
    """Return the process that serves."""
    pid: int = subject.server.state()["pid"]
    return pid


def upgrade(subject: Harn, answers: Path | None) -> Upgraded:
    """Upgrade once, during a load whose ``answers`` are kept, or with only a heartbeat."""
    old = serving(subject)
    seconds = LEAD + LIMIT + TAIL
    load = None if answers is None else Running(subject.route(), seconds, answers=str(answers))
    beating = Beating(subject.server.url, seconds)
    time.sleep(LEAD)
    lines = subject.server.lines
    before = len(lines)
    began = time.perf_counter()
    os.kill(old, signal.SIGUSR2)
    handed_over = wait_for(
        lambda: any(" serves now; this one ends " in line for line in lines[before:]), "the new program", began
    )
    # The first server is a child of this process, and stays a zombie until this process polls it.
    ended = wait_for(
        lambda: subject.server.process.poll() is not None and not is_alive(old), "the old one's end", began
    )
    time.sleep(TAIL)
    beats, came = beating.stop(), None if load is None else load.stop()
    assert serving(subject) != old
    return Upgraded(handed_over=handed_over, ended=ended, load=came, beats=beats)


def show(started: float, idle: Sequence[Upgraded], upgrades: Sequence[Upgraded], quiet: Beats, calm: Result) -> None:
    """
    Print the measurements.

    :param started: how long the first server took to start, for comparison (ms).
    :param quiet: the heartbeat, and ``calm`` the requests, of the same load without an upgrade.
    """
    loads = loads_of(upgrades)
    table = Table(
        f"{len(upgrades)} upgrades under load, {len(idle)} without",
        ("what", "without load", "under load", "the load alone"),
    )

    def add(what: str, figure: Callable[[Upgraded], float], alone: str = "") -> None:
        table.add(what, spread([figure(each) for each in idle]), spread([figure(each) for each in upgrades]), alone)

    table.add("an ordinary start, until it serves (ms)", f"{started:.1f}", "", "")
    add("from the signal until the new program served (ms)", lambda each: each.handed_over)
    add("until the old one was gone (ms)", lambda each: each.ended)
    add("heartbeat's longest gap (ms)", lambda each: each.beats.gap, f"{quiet.gap:.1f}")
    table.add("p99 of requests (ms)", "", spread([load.p99 for load in loads]), f"{calm.p99:.1f}")
    table.add("slowest request (ms)", "", spread([load.longest for load in loads]), f"{calm.longest:.1f}")
    table.add("requests answered, of all", "", f"{sum(load.answered for load in loads):,}", f"{calm.answered:,}")
    table.add("connections closed with an answer, each", "", spread([float(load.closed) for load in loads], 0), "")
    table.show()


def loads_of(upgrades: Sequence[Upgraded]) -> list[Result]:
    """Return the results of the loads."""
    return [each.load for each in upgrades if each.load is not None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks upgrade", description=__doc__)
    parser.add_argument("--upgrades", type=int, default=10, help="under load")
    options = parser.parse_args(arguments)
    accepted: list[str] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory, harn_server() as subject:
        started = (time.perf_counter() - began) * 1e3
        answers = Path(directory) / "answers"
        try:
            idle = [upgrade(subject, None) for _ in range(IDLE)]
            load, beating = Running(subject.route(), QUIET), Beating(subject.server.url, QUIET)
            calm, quiet = load.result(), beating.result()
            upgrades = []
            for number in range(options.upgrades):
                upgrades.append(upgrade(subject, answers))
                accepted.extend(accepted_ids(answers))
                print(f"upgrade {number + 1}: served after {upgrades[-1].handed_over:.0f} ms", flush=True)
            subject.wait_done()
            lost = len(set(accepted) - done_ids(subject))
        finally:
            # The process that serves is not a child of this one, but it is in the process group of the first server.
            with suppress(ProcessLookupError):
                os.killpg(subject.pid, signal.SIGKILL)
    show(started, idle, upgrades, quiet, calm)
    goals = Goals()
    failed = sum(each.beats.failed for each in (*idle, *upgrades)) + sum(load.failed for load in loads_of(upgrades))
    goals.at_most("requests failed", 0, [float(failed)], 0)
    goals.at_most("accepted events that are not done in the end", 0, [float(lost)], 0)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
