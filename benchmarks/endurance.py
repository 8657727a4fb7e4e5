"""What two thousand reloads leave behind: memory, descriptors, threads and children stay what they were."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from benchmarks.cores import Holdings, holdings
from benchmarks.figures import Goals, Table, spread
from benchmarks.subjects import QUICK, Harn, harn_server, replace

REST = 1.5
"""Seconds in which what a reload replaced is drained and closed, and a spare interpreter is warm again."""
SETTLED_AFTER = 200
"""Reloads after which the first reading counts: allocators and caches have found their size."""


def reload_once(subject: Harn, number: int) -> float:
    """Change handler code or the manifest, in turn; give how long the reload took (ms)."""
    if number % 2:
        replace(subject.handlers, QUICK.replace("event.kind", str(number)))
    else:
        subject.write_manifest(number // 2 % subject.triggers)
    began = time.perf_counter()
    answer = subject.server.reload()
    took = (time.perf_counter() - began) * 1e3
    assert answer.status == 200, answer
    assert answer.json()["summary"]["modified"], answer
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks endurance", description=__doc__)
    parser.add_argument("--reloads", type=int, default=2000)
    parser.add_argument("--readings", type=int, default=10)
    told = parser.parse_args(arguments)
    every = max(1, told.reloads // told.readings)
    table = Table(
        f"{told.reloads:,} reloads of 10 triggers, code and manifest in turn",
        (
            "reloads",
            "server MiB",
            "all MiB (RSS)",
            "all MiB (PSS)",
            "descriptors",
            "threads",
            "children",
            "ms a reload",
        ),
    )

    def note(reloads: int, found: Holdings, times: Sequence[float]) -> None:
        table.add(
            f"{reloads:,}",
            f"{found.own_resident:.1f}",
            f"{found.resident:.1f}",
            f"{found.proportional:.1f}",
            str(found.descriptors),
            str(found.threads),
            str(found.children),
            spread(times) if times else "",
        )

    with harn_server() as subject:
        time.sleep(REST)
        readings = [holdings(subject.pid)]
        note(0, readings[0], [])
        first: Holdings | None = None
        times: list[float] = []
        for number in range(1, told.reloads + 1):
            times.append(reload_once(subject, number))
            if number % every == 0:
                time.sleep(REST)
                readings.append(holdings(subject.pid))
                note(number, readings[-1], times)
                print(f"{number:,} reloads: server {readings[-1].own_resident:.1f} MiB", flush=True)
                times = []
                if first is None and number >= min(SETTLED_AFTER, told.reloads // 2):
                    first = readings[-1]
    table.show()
    goals = Goals()
    last = readings[-1]
    first = first or readings[0]
    goals.at_most("growth of the server's memory (MiB)", 2, [last.own_resident - first.own_resident], 2)
    goals.at_most("growth in descriptors", 0, [float(last.descriptors - first.descriptors)], 0)
    goals.at_most("growth in threads", 0, [float(last.threads - first.threads)], 0)
    goals.at_most("growth in children", 0, [float(last.children - first.children)], 0)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
