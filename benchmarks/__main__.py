"""``python -m benchmarks [NAME] [options]``: one benchmark, or all of them, from the project's directory."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.cores import keep_off

NAMES = (
    "ingest",
    "steps",
    "reload",
    "storm",
    "race",
    "loss",
    "kills",
    "upgrade",
    "endurance",
    "start",
    "backlog",
    "fairness",
    "lists",
    "bulk",
    "consoles",
    "faults",
    "agreement",
    "statements",
    "scaling",
)
PAIRED = "paired"
"""Runs one of them in two checkouts; not among those that run without a name."""


def main(arguments: list[str]) -> int:
    """Run the named benchmarks; return 0 when every goal was met."""
    keep_off()
    if not arguments:
        return int(sum(import_module(f"benchmarks.{name}").main([]) for name in NAMES) > 0)
    name, *rest = arguments
    if name not in (*NAMES, PAIRED):
        print(f"usage: python -m benchmarks [{'|'.join((*NAMES, PAIRED))}] [--help]", file=sys.stderr)
        return 2
    missed: int = import_module(f"benchmarks.{name}").main(rest)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
