"""
A load without tools: kept-alive connections that send their next request when the last one is answered.

It reads every answer, keeps how long each took, and can note the id of every event that was accepted. One request
costs it some 15 microseconds, a fraction of a server's cost. A program of its own, so that it has its own core:
``python -m benchmarks.load '{"url": ..., "seconds": ...}'`` prints its `Result` as JSON.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from array import array
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from attrs import asdict, frozen

from benchmarks.cores import LOAD, on_core
from benchmarks.traffic import request_parts

CONNECTIONS = 64
GRACE = 15.0
"""Seconds after the end in which the last answers may come."""

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_CLOSES = re.compile(rb"\r\n[Cc]onnection: *close")


@frozen(kw_only=True)
class Result:
    """
    The result of a load. Times in milliseconds, ``rate`` in answers a second.

    :ivar failed: requests with another answer than 2xx, or none.
    :ivar closed: connections that the server closed with an answer; each was replaced.
    """

    answered: int
    failed: int
    rate: float
    p50: float
    p99: float
    longest: float
    closed: int = 0


def _body_of(data: bytes) -> int | None:
    """Return where the body of a complete answer begins; None while it is not complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(data, 0, end)
    if length is None:  # in chunks, as Klein answers
        return end + 4 if data.endswith(b"0\r\n\r\n") else None
    return end + 4 if len(data) >= end + 4 + int(length[1]) else None


class _Connection:
    __slots__ = ("buffer", "sent_at", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 10.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self.buffer = b""


class Load:
    """
    One load.

    :ivar latencies: seconds, of each answer that was 2xx.
    :ivar answers: their bodies, where ``keep`` is true.
    """

    def __init__(self, url: str, connections: int = CONNECTIONS, *, keep: bool = False) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._before, self._after = request_parts(parts.path, parts.netloc)
        self._run = f"{os.getpid()}-{time.time_ns():x}"
        self._count = connections
        self._keep = keep
        self._sent = 0
        self._ends = 0.0
        self.failed = self.closed = 0
        self.latencies = array("d")
        self.answers: list[bytes] = []

    def run(self, seconds: float) -> Result:
        """Load for so long, or until `stop`; then wait for the answers that are due."""
        poll = select.epoll()
        connections: dict[int, _Connection] = {}
        for _ in range(self._count):
            self._connect(poll, connections)
        began = now = time.perf_counter()
        self._ends = began + seconds
        for connection in connections.values():
            self._send(connection)
        waiting = len(connections)
        while waiting and now < self._ends + GRACE:
            for descriptor, _ in poll.poll(0.5):
                connection = connections[descriptor]
                done = self._receive(connection)
                now = time.perf_counter()
                if done is None:  # the connection is of no use any more
                    del connections[descriptor]
                    connection.socket.close()
                    waiting -= 1
                    fresh = self._connect(poll, connections) if now < self._ends else None
                    if fresh is not None:
                        self._send(fresh)
                        waiting += 1
                elif done:
                    if now < self._ends:
                        self._send(connection)
                    else:
                        waiting -= 1
            now = time.perf_counter()
        self.failed += waiting
        for connection in connections.values():
            connection.socket.close()
        return self._result(time.perf_counter() - began)

    def stop(self) -> None:
        """End it before its time: nothing new is sent."""
        self._ends = time.perf_counter()

    def _connect(self, poll: select.epoll, connections: dict[int, _Connection]) -> _Connection | None:
        """Open a connection; one that is refused is a request that failed."""
        try:
            connection = _Connection(self._address)
        except OSError:
            self.failed += 1
            return None
        connections[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _send(self, connection: _Connection) -> None:
        self._sent += 1
        connection.sent_at = time.perf_counter()
        with suppress(OSError):  # the read that follows meets the error too, and counts it
            connection.socket.sendall(b"%s%s-%d%s" % (self._before, self._run.encode(), self._sent, self._after))

    def _receive(self, connection: _Connection) -> bool | None:
        """Read; return whether an answer is complete, or None when the connection has ended."""
        try:
            data = connection.socket.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.failed += 1
            return None
        data = connection.buffer + data
        start = _body_of(data)
        if start is None:
            connection.buffer = data
            return False
        connection.buffer = b""
        if data[9:10] == b"2":
            self.latencies.append(time.perf_counter() - connection.sent_at)
            if self._keep:
                self.answers.append(data[start:])
        else:
            self.failed += 1
        if _CLOSES.search(data, 0, start):
            self.closed += 1
            return None
        return True

    def _result(self, seconds: float) -> Result:
        ordered = sorted(self.latencies) or [0.0]
        return Result(
            answered=len(self.latencies),
            failed=self.failed,
            rate=len(self.latencies) / seconds,
            p50=ordered[len(ordered) // 2] * 1e3,
            p99=ordered[len(ordered) * 99 // 100] * 1e3,
            longest=ordered[-1] * 1e3,
            closed=self.closed,
        )


class Running:
    """A load that runs in a process of its own."""

    def __init__(self, url: str, seconds: float, connections: int = CONNECTIONS, answers: str | None = None) -> None:
        parameters = {"url": url, "seconds": seconds, "connections": connections, "answers": answers}
        with on_core(LOAD):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.load", json.dumps(parameters)], stdout=subprocess.PIPE, text=True
            )

    def result(self) -> Result:
        """Wait for its end."""
        output, _ = self._process.communicate()
        return Result(**json.loads(output))

    def stop(self) -> Result:
        """End it before its time, without a request that fails because of it; return its result."""
        self._process.terminate()
        return self.result()

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None


def main(arguments: dict[str, Any]) -> None:
    """Run one load by these arguments; write accepted answers to the file ``answers``, one a line, if it is given."""
    load = Load(arguments["url"], arguments["connections"], keep=arguments["answers"] is not None)
    signal.signal(signal.SIGTERM, lambda *_: load.stop())
    result = load.run(arguments["seconds"])
    if arguments["answers"] is not None:
        with open(arguments["answers"], "wb") as file:
            file.writelines(answer + b"\n" for answer in load.answers)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
