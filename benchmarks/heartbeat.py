"""
A heartbeat: a cheap request every few milliseconds on a connection of its own, to see how long the server is silent.

``python -m benchmarks.heartbeat '{"url": ..., "seconds": ...}'`` prints its `Beats` as JSON.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from attrs import asdict, frozen

from benchmarks.cores import LOAD, on_core

EVERY = 0.005
"""Seconds from one request to the next, if the answer has come."""


@frozen(kw_only=True)
class Beats:
    """
    The answers to the requests of a heartbeat.

    :ivar failed: requests with another answer than 200, or none.
    :ivar closed: connections that the server closed with an answer; each was replaced.
    :ivar gap: the longest time between two answers (ms); ``p99``: of these times; ``late``: how many were over 30 ms.
    """

    answered: int
    failed: int
    gap: float
    p99: float
    late: int
    closed: int = 0


def beat(url: str, seconds: float, goes_on: Callable[[], bool] = lambda: True) -> Beats:
    """Send a request every 5 ms for ``seconds``, or while ``goes_on()``."""
    parts = urlsplit(url)
    request = f"GET /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    gaps: list[float] = []
    failed = closed = 0
    connection = _connect(url)
    due = last = time.perf_counter()
    ends = due + seconds
    while due < ends and goes_on():
        answer = b""
        with suppress(OSError):  # then there is no answer
            connection.sendall(request)
            answer = connection.recv(4096)
        now = time.perf_counter()
        if answer.startswith(b"HTTP/1.1 200 "):
            gaps.append((now - last) * 1e3)
            last = now
        else:
            failed += 1
        is_closing = b"\r\nConnection: close" in answer
        if not answer or is_closing:
            closed += is_closing
            connection.close()
            connection = _connect(url)
        due = max(due + EVERY, now)
        time.sleep(max(0.0, due - now))
    ordered = sorted(gaps[1:])
    return Beats(
        answered=len(gaps),
        failed=failed,
        gap=ordered[-1],
        p99=ordered[len(ordered) * 99 // 100],
        late=sum(gap > 30.0 for gap in ordered),
        closed=closed,
    )


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port or 80), 10.0)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Beating:
    """A heartbeat that runs in a process of its own."""

    def __init__(self, url: str, seconds: float) -> None:
        arguments = json.dumps({"url": url, "seconds": seconds})
        with on_core(LOAD):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.heartbeat", arguments], stdout=subprocess.PIPE, text=True
            )

    def stop(self) -> Beats:
        """End it before its time; return its answers."""
        self._process.terminate()
        return self.result()

    def result(self) -> Beats:
        """Wait for its end."""
        output, _ = self._process.communicate()
        return Beats(**json.loads(output))


def main(arguments: dict[str, Any]) -> None:
    """Run a heartbeat for the given time, or until SIGTERM, and print its `Beats`."""
    stopped = Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    print(json.dumps(asdict(beat(arguments["url"], arguments["seconds"], lambda: not stopped.is_set()))))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
