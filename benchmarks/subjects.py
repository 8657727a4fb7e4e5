"""The subjects of measurements: a harn server or the bare Klein route, each on its core, in a fresh directory."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import frozen

from benchmarks.cores import SERVER, on_core
from harn.testing.manifests import manifest_text
from harn.testing.server import SERVE, ServerProcess

QUICK = '''"""Handlers of a benchmark."""


async def on_event(event, context):
    """Do next to nothing, in the interpreter."""
    return {"kind": event.kind}
'''
BLOCKING = '''"""Handlers of a benchmark."""

import asyncio


async def on_event(event):
    """Hold dispatch back: never return."""
    await asyncio.Event().wait()
'''
HEAD = '[package]\nname = "benchmark"\n'
ONE_AT_A_TIME = HEAD + "\n[orchestrator.pumps]\nmax_outstanding = 1\n"


@frozen(kw_only=True)
class Progress:
    """The numbers of deliveries that a server has accepted, and that are done."""

    accepted: int
    done: int


class Harn:
    """
    A harn server.

    :ivar server: its process.
    :ivar manifest: its manifest's path; ``handlers``: that of its handlers.
    """

    def __init__(
        self, directory: Path, triggers: int, handlers: str, head: str, extra: str, launcher: Sequence[str]
    ) -> None:
        self._head, self._extra = head, extra
        self.triggers = triggers
        self.manifest = directory / "harn.toml"
        self.handlers = directory / "handlers.py"
        self.handlers.write_text(handlers)
        self.write_manifest()
        with on_core(SERVER):
            self.server = ServerProcess(directory, launcher=launcher)
        self.server.wait_ready(120.0)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.server.pid

    def route(self, number: int = 0) -> str:
        """Return the URL of a trigger's route."""
        return f"{self.server.url}/hooks/t{number}"

    def text(self, *changed: int) -> str:
        """Return the manifest with some triggers changed."""
        return manifest_text(self.triggers, changed=changed, head=self._head, extra=self._extra)

    def write_manifest(self, *changed: int) -> None:
        """Put the manifest with some triggers changed in place of the last one, in one step."""
        replace(self.manifest, self.text(*changed))

    def progress(self) -> Progress:
        """Count deliveries in the store."""
        with closing(sqlite3.connect(f"file:{self.server.state_dir}/events.sqlite?mode=ro", uri=True)) as database:
            (accepted,) = database.execute("SELECT coalesce(max(id), 0) FROM deliveries").fetchone()
            (done,) = database.execute("SELECT count(*) FROM deliveries WHERE state = 2").fetchone()
        return Progress(accepted=accepted, done=done)

    def wait_done(self, timeout: float = 120.0) -> float:
        """Wait until everything accepted is done; give how long that took (seconds)."""
        began = time.perf_counter()
        while True:
            progress = self.progress()
            waited = time.perf_counter() - began
            if progress.done >= progress.accepted:
                return waited
            assert waited < timeout, f"{progress.accepted - progress.done} deliveries are not done in {timeout:g} s"
            time.sleep(0.02)


class Peer:
    """
    A program to compare with.

    :param module: prints its URL when it is run with ``arguments``.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        with on_core(SERVER):
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdout is not None
        self._url = self._process.stdout.readline().strip()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def route(self, number: int = 0) -> str:
        """Return the URL of its route."""
        return f"{self._url}/hooks/t{number}"

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def replace(path: Path, text: str) -> None:
    """Write a file in one step, as editors and deployments do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


@contextmanager
def harn_server(
    triggers: int = 10,
    handlers: str = QUICK,
    head: str = HEAD,
    extra: str = 'timeout = "1h"\n',
    launcher: Sequence[str] = SERVE,
) -> Iterator[Harn]:
    """
    Serve ``triggers`` triggers that call ``on_event`` in ``handlers``, and end it.

    :param head: of the manifest; ``extra``: further lines of each trigger's table.
    :param launcher: what Python runs as the server; see `ServerProcess`.
    """
    with tempfile.TemporaryDirectory(prefix="harn-benchmark-") as directory:
        subject = Harn(Path(directory), triggers, handlers, head, extra, launcher)
        try:
            yield subject
        finally:
            subject.server.kill()
            subject.server.stop()


@contextmanager
def bare_klein() -> Iterator[Peer]:
    """Serve the bare Klein route, and end it."""
    subject = Peer("benchmarks.bare_klein")
    try:
        yield subject
    finally:
        subject.end()


@contextmanager
def starlette_peer() -> Iterator[Peer]:
    """Serve Starlette with a durable route, and end it."""
    with tempfile.TemporaryDirectory(prefix="harn-benchmark-") as directory:
        subject = Peer("benchmarks.starlette_peer", directory)
        try:
            yield subject
        finally:
            subject.end()
