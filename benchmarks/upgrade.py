"""
What an upgrade in place costs: ``kill -USR2`` under load, again and again; nobody is turned away, and nothing is lost.

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
"""Seconds for which it goes on once the old program is gone."""
QUIET = 5.0
"""Seconds of the same load without an upgrade."""
LIMIT = 60.0
"""Seconds in which an upgrade must be over."""


@frozen(kw_only=True)
class Upgraded:
    """
    What came of one upgrade under load. Times in milliseconds.

    :ivar handed_over: from the signal until the new program served; ``ended``: until the old one was gone.
    """

    handed_over: float
    ended: float
    load: Result
    beats: Beats


def wait_for(condition: Callable[[], bool], what: str, began: float) -> float:
    """Wait closely; give the time since ``began`` (ms)."""
    while not condition():
        assert time.perf_counter() - began < LIMIT, f"waited {LIMIT:g} s in vain for {what}"
        time.sleep(0.002)
    return (time.perf_counter() - began) * 1e3


def serving(subject: Harn) -> int:
    """Give the process that serves."""
    pid: int = subject.server.state()["pid"]
    return pid


def upgrade(subject: Harn, answers: Path) -> Upgraded:
    """Upgrade once, in the midst of a load."""
    old = serving(subject)
    seconds = LEAD + LIMIT + TAIL
    load, beating = Running(subject.route(), seconds, answers=str(answers)), Beating(subject.server.url, seconds)
    time.sleep(LEAD)
    lines = subject.server.lines
    before = len(lines)
    began = time.perf_counter()
    os.kill(old, signal.SIGUSR2)
    handed_over = wait_for(
        lambda: any(" serves now; this one ends " in line for line in lines[before:]), "the new program", began
    )
    ended = wait_for(
        lambda: subject.server.process.poll() is not None and not is_alive(old), "the old one's end", began
    )
    time.sleep(TAIL)
    beats, came = beating.stop(), load.stop()
    assert serving(subject) != old
    return Upgraded(handed_over=handed_over, ended=ended, load=came, beats=beats)


def show(quiet: Beats, calm: Result, upgrades: Sequence[Upgraded]) -> None:
    """Print what was measured."""
    table = Table(f"{len(upgrades)} upgrades under load", ("what", "figure"))
    table.add("from the signal until the new program served (ms)", spread([each.handed_over for each in upgrades]))
    table.add("until the old one was gone (ms)", spread([each.ended for each in upgrades]))
    table.add("requests answered", f"{sum(each.load.answered for each in upgrades):,}")
    table.add("connections closed with an answer, each upgrade", spread([float(e.load.closed) for e in upgrades], 0))
    table.add("p99 of requests (ms)", spread([each.load.p99 for each in upgrades]))
    table.add("slowest request (ms)", spread([each.load.longest for each in upgrades]))
    table.add("heartbeat's longest gap (ms)", spread([each.beats.gap for each in upgrades]))
    table.add("p99 of requests without an upgrade (ms)", f"{calm.p99:.1f}")
    table.add("slowest request without an upgrade (ms)", f"{calm.longest:.1f}")
    table.add("heartbeat's longest gap without an upgrade (ms)", f"{quiet.gap:.1f}")
    table.show()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks upgrade", description=__doc__)
    parser.add_argument("--upgrades", type=int, default=10)
    told = parser.parse_args(arguments)
    accepted: list[str] = []
    with tempfile.TemporaryDirectory() as directory, harn_server() as subject:
        answers = Path(directory) / "answers"
        try:
            load, beating = Running(subject.route(), QUIET), Beating(subject.server.url, QUIET)
            calm, quiet = load.result(), beating.result()
            upgrades = []
            for number in range(told.upgrades):
                upgrades.append(upgrade(subject, answers))
                accepted.extend(accepted_ids(answers))
                print(f"upgrade {number + 1}: served after {upgrades[-1].handed_over:.0f} ms", flush=True)
            subject.wait_done()
            lost = len(set(accepted) - done_ids(subject))
        finally:
            # Who serves now is none of ours: a child of a child, in the group of the first.
            with suppress(ProcessLookupError):
                os.killpg(subject.pid, signal.SIGKILL)
    show(quiet, calm, upgrades)
    goals = Goals()
    failed = sum(each.load.failed + each.beats.failed for each in upgrades)
    goals.at_most("requests failed", 0, [float(failed)], 0)
    goals.at_most("accepted events that are not done in the end", 0, [float(lost)], 0)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
