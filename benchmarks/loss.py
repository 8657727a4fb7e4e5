"""
Loss by reloads, which must be 0. Deliveries come on kept-alive connections while manifest and code change; afterwards
every event that was answered as accepted must be in the store, and done.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.figures import Goals, Table
from benchmarks.load import Running
from benchmarks.subjects import QUICK, Harn, harn_server, replace


def accepted_ids(answers: Path) -> list[str]:
    """Read the ids of the events that were said to be accepted."""
    return [json.loads(line)["event_id"] for line in answers.read_bytes().splitlines()]


def done_ids(subject: Harn) -> set[str]:
    """Read from the store the ids of the events that were handled to the end."""
    with closing(sqlite3.connect(f"file:{subject.server.state_dir}/events.sqlite?mode=ro", uri=True)) as database:
        return {row[0] for row in database.execute("SELECT event_id FROM deliveries WHERE state = 2")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give how many goals were missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks loss", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two reloads")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory, harn_server() as subject:
        answers = Path(directory) / "answers"
        load = Running(subject.route(), options.seconds, answers=str(answers))
        reloads = refused = 0
        while load.is_running:
            reloads += 1
            if reloads % 2:
                replace(subject.handlers, QUICK.replace("event.kind", f"{reloads}"))
            else:
                subject.write_manifest(reloads // 2 % subject.triggers)
            refused += subject.server.reload().status != 200
            time.sleep(options.pause)
        result = load.result()
        subject.wait_done()
        accepted = accepted_ids(answers)
        lost = len(set(accepted) - done_ids(subject))
    table = Table("Reloads under load", ("what", "figure"))
    table.add("reloads (code and manifest in turn)", str(reloads))
    table.add("deliveries accepted", f"{len(accepted):,}")
    table.add("p99 of requests (ms)", f"{result.p99:.1f}")
    table.show()
    goals = Goals()
    goals.at_most("requests failed", 0, [float(result.failed)], 0)
    goals.at_most("accepted events that are not done in the end", 0, [float(lost)], 0)
    goals.at_most("reloads refused", 0, [float(refused)], 0)
    goals.show()
    return goals.missed


if __name__ == "__main__":
    raise SystemExit(main())
