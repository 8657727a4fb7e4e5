"""Many cheap clients in one thread: kept-alive connections that post signed deliveries, one after another."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable

from harn.testing.server import GITHUB_SECRET
from harn.testing.signers import github_headers

BODY = b'{"action": "opened", "issue": {"number": 1}}'


class Client:
    """One connection and the delivery that it waits for."""

    def __init__(self, address: tuple[str, int], path: str) -> None:
        self.path = path
        self.socket = socket.create_connection(address, 60.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = bytearray()
        self.key = ""
        self.is_closed = False

    def send(self, key: str) -> None:
        """Post a delivery with this id."""
        self.key = key
        self.answer.clear()
        headers = github_headers(GITHUB_SECRET, BODY, "issues", key)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nHost: harn\r\nContent-Length: {len(BODY)}\r\n{lines}\r\n"
        self.socket.sendall(head.encode("ascii") + BODY)

    def receive(self) -> bool | None:
        """Read on; tell whether the delivery was accepted, None as long as that is open."""
        piece = self.socket.recv(65536)
        if not piece:
            self.is_closed = True
            return False
        self.answer += piece
        head, separator, body = bytes(self.answer).partition(b"\r\n\r\n")
        if not separator:
            return None
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
        if len(body) < length:
            return None
        return head.startswith(b"HTTP/1.1 200 ") and b'"status":"accepted"' in body


class Clients:
    """
    So many clients of one route.

    :param rate: deliveries a second, of all together.
    :ivar accepted: ids of the deliveries that were accepted.
    :ivar failures: what was answered to the others.
    """

    def __init__(self, url: str, path: str, count: int, rate: float) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.accepted: list[str] = []
        self.failures: list[bytes] = []
        self._interval = 1.0 / rate
        self._clients = [Client((host, int(port)), path) for _ in range(count)]
        self._count = 0

    def run(self, finished: Callable[[], bool]) -> None:
        """Post until ``finished``, then wait for the last answers."""
        idle = list(self._clients)
        next_at = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
            while True:
                now = time.monotonic()
                over = finished()
                while idle and now >= next_at and not over:
                    self._count += 1
                    next_at = max(next_at + self._interval, now - 0.1)
                    idle.pop().send(f"d{self._count}")
                if over and len(idle) == len(self._clients):
                    return
                for key, _ in selector.select(0.05 if over or not idle else max(0.0, next_at - now)):
                    client = key.data
                    outcome = client.receive()
                    if outcome is None:
                        continue
                    if outcome:
                        self.accepted.append(client.key)
                    else:
                        self.failures.append(bytes(client.answer[:300]))
                    if client.is_closed:
                        selector.unregister(client.socket)
                        self._clients.remove(client)
                        client.socket.close()
                    else:
                        idle.append(client)

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            client.socket.close()
