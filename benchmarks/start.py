"""The time until the command answers and until the server serves, and the server's holdings at rest."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cores import SERVER, holdings, on_core
from benchmarks.figures import Goals, Table, spread
from benchmarks.subjects import HEAD, QUICK
from harn.testing.manifests import manifest_text
from harn.testing.server import ServerProcess

REST = 2.0
"""Seconds until a server that has just become ready is at rest."""


def time_of(*arguments: str) -> float:
    """Run Python with ``arguments`` on the server's core; give how long it took (ms)."""
    began = time.perf_counter()
    with on_core(SERVER):
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1e3


def serve(directory: Path, triggers: int) -> tuple[float, float, float, int]:
    """Start a server; give when it was ready (ms), its memory as RSS and PSS (MiB), its children."""
    (directory / "harn.toml").write_text(manifest_text(triggers, head=HEAD))
    (directory / "handlers.py").write_text(QUICK)
    began = time.perf_counter()
    with on_core(SERVER):
        server = ServerProcess(directory)
    try:
        while "HTTP listener ready" not in server.stderr and server.process.poll() is None:
            time.sleep(0.001)
        ready = (time.perf_counter() - began) * 1e3
        server.wait_ready()
        answer = server.deliver("/hooks/t0", delivery="first", event="issues")
        assert answer.status == 200, answer
        time.sleep(REST)
        found = holdings(server.pid)
    finally:
        server.kill()
        server.stop()
    return ready, found.resident, found.proportional, found.children


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    names = ("python -c pass", "import of reactor and klein", "harn --version")
    commands = (("-c", "pass"), ("-c", "import twisted.internet.reactor, klein"), ("-m", "harn", "--version"))
    times: dict[str, list[float]] = {name: [] for name in names}
    served: dict[int, list[tuple[float, float, float, int]]] = {10: [], 10_000: []}
    for _ in range(options.rounds):
        for name, command in zip(names, commands, strict=True):
            times[name].append(time_of(*command))
        for count, results in served.items():
            with tempfile.TemporaryDirectory() as directory:
                results.append(serve(Path(directory), count))
    table = Table("Start and rest", ("what", "figure", "x python -c pass"))
    nothing = times["python -c pass"]

    def add(what: str, values: Sequence[float]) -> None:
        table.add(what, spread(values), spread([a / b for a, b in zip(values, nothing, strict=True)]))

    for name in names:
        add(f"{name} (ms)", times[name])
    for count, results in served.items():
        add(f"ready to serve {count:,} triggers (ms)", [each[0] for each in results])
    for count, results in served.items():
        table.add(f"at rest, {count:,} triggers: RSS of all (MiB)", spread([each[1] for each in results]), "")
        table.add(f"at rest, {count:,} triggers: PSS of all (MiB)", spread([each[2] for each in results]), "")
        table.add(f"at rest, {count:,} triggers: children", str(results[-1][3]), "")
    table.show()
    goals = Goals()
    goals.at_most("harn --version (ms)", 150, times["harn --version"], 0)
    goals.at_most("ready to serve 10 triggers (ms)", 700, [each[0] for each in served[10]], 0)
    goals.at_most("resident at rest, 10 triggers, RSS of all (MiB)", 130, [each[1] for each in served[10]], 1)
    goals.at_most("resident at rest, 10 triggers, PSS of all (MiB)", 130, [each[2] for each in served[10]], 1)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
