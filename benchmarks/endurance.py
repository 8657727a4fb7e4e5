"""Leaks over two thousand reloads: memory, descriptors, threads and other holdings of a server must not grow."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

from attrs import frozen

from benchmarks.cores import Holdings, holdings
from benchmarks.edits import Edits
from benchmarks.figures import Goals, Table, spread
from benchmarks.subjects import Harn, harn_server
from benchmarks.watched import LAUNCHER, Inside, inside
from harn.testing.server import wait_until

REST = 1.5
"""Seconds in which a reload's replaced parts are closed, and a spare interpreter is warm again."""
SETTLED_AFTER = 200
"""Adopted reloads after which the first reading counts: allocators and caches have found their size."""
MIB_MORE = 5
"""Growth of the server's memory that may be the allocator's (MiB)."""
COLUMNS = (
    *("adopted", "server MiB", "all MiB (RSS)", "all MiB (PSS)", "descriptors", "threads", "children"),
    *("timers", "series", "objects", "store MiB", "ms a reload"),
)


@frozen(kw_only=True)
class Reading:
    """
    The holdings of a server at rest.

    :ivar series: samples of each metric that ``GET /metrics`` shows; ``stored``: MiB of the state directory.
    """

    holdings: Holdings
    inside: Inside
    series: Mapping[str, int]
    stored: float

    @property
    def series_count(self) -> int:
        """The number of samples."""
        return sum(self.series.values())


def count_series(text: str) -> dict[str, int]:
    """Count the samples of each metric in Prometheus' text format."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            found[name] = found.get(name, 0) + 1
    return found


def read(subject: Harn) -> Reading:
    """Wait until nothing drains and the server is at rest, then read its holdings."""
    server = subject.server
    wait_until(lambda: not server.admin("GET", "/admin/drains").json()["drains"], "the end of all drains")
    series = count_series(server.request("GET", "/metrics").body.decode())
    time.sleep(REST)
    # From outside first: reading from inside makes the server collect its garbage.
    held = holdings(subject.pid)
    return Reading(
        holdings=held,
        inside=inside(server),
        series=series,
        stored=sum(file.stat().st_size for file in server.state_dir.iterdir() if file.is_file()) / 2**20,
    )


def note(table: Table, adopted: int, reading: Reading, times: Sequence[float]) -> None:
    """Put a reading into the table."""
    held = reading.holdings
    table.add(
        *(f"{adopted:,}", f"{held.own_resident:.1f}", f"{held.resident:.1f}", f"{held.proportional:.1f}"),
        *(str(held.descriptors), str(held.threads), str(held.children)),
        *(str(reading.inside.timer_count), str(reading.series_count), f"{reading.inside.objects:,}"),
        *(f"{reading.stored:.1f}", spread(times) if times else ""),
    )


def differences(first: Mapping[str, int], last: Mapping[str, int]) -> str:
    """Return which counts differ."""
    names = sorted(name for name in {*first, *last} if first.get(name, 0) != last.get(name, 0))
    return ", ".join(f"{name} {first.get(name, 0)} -> {last.get(name, 0)}" for name in names)


def judge(goals: Goals, first: Reading, last: Reading) -> None:
    """Set the last reading against the first that counts."""
    before, after = first.holdings, last.holdings
    goals.at_most("growth of the server's memory (MiB)", MIB_MORE, [after.own_resident - before.own_resident], 2)
    for what, more in (
        ("descriptors", after.descriptors - before.descriptors),
        ("threads", after.threads - before.threads),
        ("children", after.children - before.children),
        ("timers", last.inside.timer_count - first.inside.timer_count),
        ("series of metrics", last.series_count - first.series_count),
    ):
        goals.at_most(f"growth in {what}", 0, [float(more)], 0)
    for what, changed in (
        ("timers", differences(first.inside.timers, last.inside.timers)),
        ("series", differences(first.series, last.series)),
    ):
        if changed:
            print(f"{what} that changed: {changed}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks endurance", description=__doc__)
    parser.add_argument("--reloads", type=int, default=2000, help="that are adopted; as many rounds as these need")
    parser.add_argument("--readings", type=int, default=10)
    options = parser.parse_args(arguments)
    every = max(1, options.reloads // options.readings)
    with harn_server(launcher=LAUNCHER) as subject:
        edits = Edits(subject)
        readings = [read(subject)]
        table = Table("Reloads of 10 triggers, of every kind", COLUMNS)
        note(table, 0, readings[0], [])
        first: Reading | None = None
        due = every
        while edits.adopted < options.reloads:
            for _ in edits.round():
                pass
            if edits.adopted >= due:
                due += every
                readings.append(read(subject))
                note(table, edits.adopted, readings[-1], edits.times)
                print(f"{edits.adopted:,} adopted: server {readings[-1].holdings.own_resident:.1f} MiB", flush=True)
                edits.times.clear()
                if first is None and edits.adopted >= min(SETTLED_AFTER, options.reloads // 2):
                    first = readings[-1]
    table.title += f": {edits.adopted:,} adopted, {edits.refused:,} refused, {edits.dry:,} dry runs"
    table.show()
    goals = Goals()
    judge(goals, first or readings[0], readings[-1])
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
