"""Backups that a running server makes of itself: off the reactor thread, one at a time."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from harn.backup.state import check_place, origin_now
from harn.clocks import WallTime
from harn.errors import BackupRefused
from harn.store.sqlite.copying import Copied, back_up
from harn.store.sqlite.worker import ThreadWorker, run_in

log = Logger(namespace="harn.backup")

NICE = 5
"""Where the system has it for threads: what a backup costs, a request need not wait for."""


class Backups(Service):
    """
    Makes backups; one that is under way when the server ends is given up.

    :param reactor: takes the result of the thread.
    :param database: path of the event log, None for a store that is not a file.
    """

    def __init__(self, reactor: Any, wall: WallTime, database: str | None, state_dir: str) -> None:
        self._reactor = reactor
        self._wall = wall
        self._database = database
        self._state_dir = state_dir
        self._is_stopping = threading.Event()
        self._running: Deferred[None] | None = None

    async def make(self, file: str, *, replaces: bool) -> Copied:
        """
        Write a backup of everything that was accepted until now.

        :param file: its absolute path; ``replaces``: whether a backup that is there gives way.
        :raises BackupRefused: it cannot be written there, or another is under way.
        :raises BackupFailed: it is not complete, or not sound.
        """
        if self._database is None:
            raise BackupRefused("the event log of this server is not a file; use the tools of its database")
        if self._running is not None:
            raise BackupRefused("a backup is under way; wait for it")
        database, state_dir, now = self._database, self._state_dir, self._wall.seconds()

        def write() -> Copied:
            _step_back()
            check_place(file, state_dir)
            return back_up(
                database, file, origin_now(state_dir, now), replaces=replaces, is_stopped=self._is_stopping.is_set
            )

        self._running = Deferred()
        worker = ThreadWorker("harn-backup", self._reactor)
        worker.start()
        try:
            copied = await run_in(worker, write)
        finally:
            await worker.stop()
            running, self._running = self._running, None
            running.callback(None)
        log.info("backup written to {file}: {size} bytes", file=file, size=copied.size)
        return copied

    def startService(self) -> None:
        """Make backups again, also after a `stopService`."""
        Service.startService(self)
        self._is_stopping.clear()

    def stopService(self) -> Deferred[None] | None:
        """Stop the backup that is under way; fires when nothing is left of it."""
        Service.stopService(self)
        self._is_stopping.set()
        if self._running is None:
            return None
        ended: Deferred[None] = Deferred()
        self._running.addCallback(ended.callback)
        return ended


def _step_back() -> None:
    """Lower the priority of this thread, where the system schedules threads one by one."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
