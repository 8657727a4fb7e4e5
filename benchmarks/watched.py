"""
A server that also reports its internals: its timers, its objects, and how long its reactor was held.

``python -m benchmarks.watched`` takes the arguments of ``harn orchestrator serve``, and serves. On SIGRTMAX and on
SIGRTMIN it appends a line of JSON to `FILE` in its working directory: so the server needs no page for this.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, frozen

from harn.testing.server import ServerProcess, wait_until

LAUNCHER = (sys.executable, "-m", "benchmarks.watched")
"""For `ServerProcess`."""
FILE = "watched.jsonl"
_INSIDE, _HELD = signal.SIGRTMAX, signal.SIGRTMIN  # the server itself catches SIGUSR1

_Seen = TypeVar("_Seen", "Inside", "Held")


@frozen(kw_only=True)
class Inside:
    """
    The internals of a server's process.

    :ivar timers: the number of delayed calls of its reactor, by the name of the function.
    :ivar objects: the number of objects that the collector tracks, after a collection.
    """

    timers: dict[str, int]
    objects: int

    @property
    def timer_count(self) -> int:
        """The number of timers."""
        return sum(self.timers.values())


@frozen(kw_only=True)
class Held:
    """
    The longest times for which the reactor was held since the last reading, in milliseconds of processor time.

    These, unlike the gaps of a heartbeat, hardly depend on the other load of the machine.

    :ivar turn: one turn of the reactor, its own thread's time.
    :ivar collection: one run of the garbage collector on another thread, which holds all of them.
    """

    turn: float
    collection: float


class Holding:
    """Measures the times of `Held`; of one process, on the reactor's thread."""

    def __init__(self) -> None:
        self._turn = self._collection = 0.0
        self._turn_began = self._collection_began = 0.0
        self._reactor_thread = 0

    def install(self) -> None:
        """Begin to measure."""
        import threading

        from twisted.internet import reactor as installed

        reactor: Any = installed
        due: Callable[[], None] = reactor.runUntilCurrent
        self._reactor_thread = threading.get_ident()

        def next_turn() -> None:
            # The reactor calls this once a turn, first of all.
            now = time.thread_time()
            self._turn = max(self._turn, now - self._turn_began)
            self._turn_began = now
            due()

        self._turn_began = time.thread_time()
        reactor.runUntilCurrent = next_turn
        gc.callbacks.append(lambda phase, info: self._collect(phase, threading.get_ident()))

    def _collect(self, phase: str, thread: int) -> None:
        if thread == self._reactor_thread:
            return  # the turn includes it already
        now = time.thread_time()
        if phase == "start":
            self._collection_began = now
        else:
            self._collection = max(self._collection, now - self._collection_began)

    def take(self) -> Held:
        """Return the longest times so far, and start again from 0."""
        found = Held(turn=self._turn * 1e3, collection=self._collection * 1e3)
        self._turn = self._collection = 0.0
        return found


def look() -> Inside:
    """Collect the internals of this process; on the reactor's thread."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    # A LoopingCall is its own function; the function that it calls is a better name.
    calls = [getattr(call.func, "f", call.func) for call in reactor.getDelayedCalls()]
    gc.collect()
    return Inside(
        timers=dict(Counter(getattr(call, "__qualname__", type(call).__qualname__) for call in calls)),
        objects=len(gc.get_objects()) + gc.get_freeze_count(),
    )


def inside(server: ServerProcess) -> Inside:
    """Request the internals of a server that `LAUNCHER` has started. It collects its garbage for that."""
    return _ask(server, _INSIDE, Inside)


def held(server: ServerProcess) -> Held:
    """Request the longest times for which a server that `LAUNCHER` has started was held, since the last request."""
    return _ask(server, _HELD, Held)


def _ask(server: ServerProcess, number: signal.Signals, kind: type[_Seen]) -> _Seen:
    path = Path(server.directory, FILE)

    def lines() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    before = len(lines())
    server.signal(number)
    wait_until(lambda: len(lines()) > before, "the server's report of its internals")
    return kind(**json.loads(lines()[-1]))


def _append(seen: Any) -> None:
    """Append to the file, in one write."""
    file = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(asdict(seen)).encode() + b"\n")
    finally:
        os.close(file)


def main() -> None:
    """Serve by the arguments of the command, and answer signals."""
    holding = Holding()

    def answering(see: Callable[[], Any]) -> Callable[..., None]:
        def asked(*_: object) -> None:
            from twisted.internet import reactor as installed

            reactor: Any = installed

            reactor.callFromThread(lambda: _append(see()))  # in a turn of its own

        return asked

    signal.signal(_INSIDE, answering(look))
    signal.signal(_HELD, answering(holding.take))
    from harn.cli.serve import serve
    from harn.orchestrator.process import hold_back

    hold_back()  # as `serve` does, before the reactor is imported, which takes time
    holding.install()
    serve(sys.argv[1:])


if __name__ == "__main__":
    main()
