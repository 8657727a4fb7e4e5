"""
The time until the command answers and until the server serves, and the server's holdings at rest.

Beside each time stands the processor time, of all processes: its ratio to that of importing the reactor and Klein is
the same on a machine that does much else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from benchmarks.cores import SERVER, cpu_seconds, holdings, on_core
from benchmarks.figures import Goals, Table, spread
from benchmarks.subjects import HEAD, QUICK
from harn.testing.manifests import manifest_text
from harn.testing.server import ServerProcess

REST = 2.0
"""Seconds until a server that has just become ready is at rest."""
FEW = 10
IMPORTS = "import of reactor and klein"
MOST_OF_IMPORTS = 2.0
"""Processor time until few triggers are served, of all processes, divided by that of `IMPORTS`."""
MB = 1024 * 1024 / 1e6
"""Of a MiB."""


@frozen(kw_only=True)
class Served:
    """
    One start.

    :ivar ready: when it was ready (ms); ``spent``: processor time of all its processes until then (ms).
    :ivar resident: MiB of all processes; ``proportional``: with shared pages counted once.
    """

    ready: float
    spent: float
    resident: float
    proportional: float
    children: int


def time_of(*arguments: str) -> tuple[float, float]:
    """Run Python with ``arguments`` on the server's core; give how long it took, and its processor time (ms)."""
    began, before = time.perf_counter(), os.times()
    with on_core(SERVER):
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return took * 1e3, spent * 1e3


def serve(directory: Path, triggers: int) -> Served:
    """Start a server, let it rest, and end it."""
    (directory / "harn.toml").write_text(manifest_text(triggers, head=HEAD))
    (directory / "handlers.py").write_text(QUICK)
    began = time.perf_counter()
    with on_core(SERVER):
        server = ServerProcess(directory)
    try:
        while "HTTP listener ready" not in server.stderr and server.process.poll() is None:
            time.sleep(0.001)
        ready, spent = (time.perf_counter() - began) * 1e3, cpu_seconds(server.pid) * 1e3
        server.wait_ready()
        answer = server.deliver("/hooks/t0", delivery="first", event="issues")
        assert answer.status == 200, answer
        time.sleep(REST)
        found = holdings(server.pid)
    finally:
        server.kill()
        server.stop()
    return Served(
        ready=ready,
        spent=spent,
        resident=found.resident,
        proportional=found.proportional,
        children=found.children,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--many", type=int, default=10_000, help="triggers of the second server; 0 for none")
    options = parser.parse_args(arguments)
    commands = {
        "python -c pass": ("-c", "pass"),
        IMPORTS: ("-c", "import twisted.internet.reactor, klein"),
        "harn --version": ("-m", "harn", "--version"),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    served: dict[int, list[Served]] = {FEW: [], **({options.many: []} if options.many else {})}
    for _ in range(options.rounds):
        for name, command in commands.items():
            times[name].append(time_of(*command))
        for count, results in served.items():
            with tempfile.TemporaryDirectory() as directory:
                results.append(serve(Path(directory), count))
    show(times, served)
    goals = Goals()
    goals.at_most("harn --version (ms)", 60, [took for took, _ in times["harn --version"]], 0)
    goals.at_most(f"ready to serve {FEW} triggers (ms)", 600, [each.ready for each in served[FEW]], 0)
    goals.at_most(f"at rest, {FEW} triggers, PSS of all (MB)", 100, [each.proportional * MB for each in served[FEW]], 1)
    of_imports = [spent for _, spent in times[IMPORTS]]
    ratios = [each.spent / spent for each, spent in zip(served[FEW], of_imports, strict=True)]
    goals.at_most(f"processor time until {FEW} are served, x {IMPORTS}", MOST_OF_IMPORTS, ratios, 2)
    goals.show()
    return goals.missed


def show(times: Mapping[str, Sequence[tuple[float, float]]], served: Mapping[int, Sequence[Served]]) -> None:
    """Print the measurements."""
    table = Table("Start and rest", ("what", "ms", "processor time (ms)", f"of it, x {IMPORTS}"))
    of_imports = [spent for _, spent in times[IMPORTS]]

    def add(what: str, values: Sequence[tuple[float, float]]) -> None:
        ratios = [spent / each for (_, spent), each in zip(values, of_imports, strict=True)]
        table.add(what, spread([took for took, _ in values]), spread([spent for _, spent in values]), spread(ratios, 2))

    for name, values in times.items():
        add(name, values)
    for count, results in served.items():
        add(f"ready to serve {count:,} triggers", [(each.ready, each.spent) for each in results])
    table.show()
    rest = Table("At rest", ("triggers", "RSS of all (MiB)", "PSS of all (MiB)", "children"))
    for count, results in served.items():
        resident, proportional = [each.resident for each in results], [each.proportional for each in results]
        rest.add(f"{count:,}", spread(resident), spread(proportional), str(results[-1].children))
    rest.show()


if __name__ == "__main__":
    raise SystemExit(main())
