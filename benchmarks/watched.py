"""
A server that also tells what only its own process sees: its timers, and the objects that it holds.

``python -m benchmarks.watched`` takes the arguments of ``harn orchestrator serve``, and serves. For each `ASK` it
appends an `Inside`, as a line of JSON, to `FILE` in its working directory: so the server needs no page for this.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from attrs import asdict, frozen

from harn.testing.server import ServerProcess, wait_until

LAUNCHER = ("-m", "benchmarks.watched")
"""For `ServerProcess`."""
ASK = signal.SIGUSR1
FILE = "inside.jsonl"


@frozen(kw_only=True)
class Inside:
    """
    What a server's process sees of itself.

    :ivar timers: calls that its reactor is to make later, by what they call.
    :ivar objects: that the collector knows, after it has collected.
    """

    timers: dict[str, int]
    objects: int

    @property
    def timer_count(self) -> int:
        """How many timers there are."""
        return sum(self.timers.values())


def look() -> Inside:
    """Look at this process; on the reactor's thread."""
    from twisted.internet import reactor

    # A LoopingCall is its own function; what it calls says more.
    calls = [getattr(call.func, "f", call.func) for call in reactor.getDelayedCalls()]
    gc.collect()
    return Inside(
        timers=dict(Counter(getattr(call, "__qualname__", type(call).__qualname__) for call in calls)),
        objects=len(gc.get_objects()) + gc.get_freeze_count(),
    )


def tell() -> None:
    """Append what `look` gives to the file, in one write."""
    line = json.dumps(asdict(look())).encode() + b"\n"
    file = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def ask(server: ServerProcess) -> Inside:
    """Ask a server that `LAUNCHER` has started, and wait for its answer."""
    path = Path(server.directory, FILE)

    def told() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    before = len(told())
    server.signal(ASK)
    wait_until(lambda: len(told()) > before, "what the server sees of itself")
    return Inside(**json.loads(told()[-1]))


def main() -> None:
    """Serve as told, and answer to `ASK`."""

    def asked(*_: object) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(tell)  # in a turn of its own

    signal.signal(ASK, asked)
    from harn.cli.serve import serve

    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
