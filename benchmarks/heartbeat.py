"""
A heartbeat: a cheap request every few milliseconds on a connection of its own, to see how long the server is silent.

``python -m benchmarks.heartbeat '{"url": ..., "seconds": ...}'`` prints its `Beats` as JSON.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from attrs import asdict, frozen

from benchmarks.cores import LOAD, on_core

EVERY = 0.005
"""Seconds from one request to the next, if the answer has come."""


@frozen(kw_only=True)
class Beats:
    """
    How it was answered.

    :ivar failed: answers that were not 200.
    :ivar gap: the longest time between two answers (ms); ``p99``: of these times; ``late``: how many were over 30 ms.
    """

    answered: int
    failed: int
    gap: float
    p99: float
    late: int


def beat(url: str, seconds: float) -> Beats:
    """Ask every 5 ms for so long."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port or 80), 10.0)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = f"GET /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    gaps: list[float] = []
    failed = 0
    due = last = time.perf_counter()
    ends = due + seconds
    while due < ends:
        connection.sendall(request)
        answer = connection.recv(4096)
        now = time.perf_counter()
        failed += not answer.startswith(b"HTTP/1.1 200 ")
        gaps.append((now - last) * 1e3)
        last = now
        due = max(due + EVERY, now)
        time.sleep(max(0.0, due - now))
    ordered = sorted(gaps[1:])
    return Beats(
        answered=len(gaps),
        failed=failed,
        gap=ordered[-1],
        p99=ordered[len(ordered) * 99 // 100],
        late=sum(gap > 30.0 for gap in ordered),
    )


class Beating:
    """A heartbeat that runs in a process of its own."""

    def __init__(self, url: str, seconds: float) -> None:
        told = json.dumps({"url": url, "seconds": seconds})
        with on_core(LOAD):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.heartbeat", told], stdout=subprocess.PIPE, text=True
            )

    def result(self) -> Beats:
        """Wait for its end."""
        output, _ = self._process.communicate()
        return Beats(**json.loads(output))


def main(told: dict[str, Any]) -> None:
    """Beat as told."""
    print(json.dumps(asdict(beat(told["url"], told["seconds"]))))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
