"""
The peer: what a Python user would write instead, Starlette on uvicorn, durable by group commit in SQLite.

``python -m benchmarks.starlette_peer DIRECTORY`` prints its URL. It checks GitHub's signature and the body's syntax,
and answers 202 when the delivery is on disk; it has no limits, time-outs, retries, metrics or reloads.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import sqlite3
import sys
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn import Config, Server

from harn.testing.server import GITHUB_SECRET

_TABLE = "CREATE TABLE events(id INTEGER PRIMARY KEY, trigger TEXT, delivery TEXT, at REAL, body BLOB)"
_INSERT = "INSERT INTO events(trigger, delivery, at, body) VALUES(?, ?, ?, ?)"
Row = tuple[str, str, float, bytes]


class Store:
    """A table of events; what comes while a commit runs goes into the next one."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", _TABLE):
            self._database.execute(statement)
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, row: Row) -> None:
        """Return when the row is on disk."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, kept))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await kept

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.to_thread(self._commit, [row for row, _ in batch])
            for _, kept in batch:
                kept.set_result(None)
        self._writing = None

    def _commit(self, rows: list[Row]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(_INSERT, rows)
        self._database.execute("COMMIT")


def make_app(store: Store) -> Starlette:
    """Make the application."""

    async def take(request: Request) -> Response:
        body = await request.body()
        signature = "sha256=" + hmac.new(GITHUB_SECRET, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature, request.headers.get("x-hub-signature-256", "")):
            return Response(status_code=401)
        json.loads(body)
        await store.keep(
            (request.path_params["trigger"], request.headers["x-github-delivery"], time.time(), body),
        )
        return Response(status_code=202)

    return Starlette(routes=[Route("/hooks/{trigger}", take, methods=["POST"])])


def main(directory: str) -> None:
    """Serve on a free port until a signal ends the process."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    app = make_app(Store(Path(directory) / "events.sqlite"))
    Server(Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])
