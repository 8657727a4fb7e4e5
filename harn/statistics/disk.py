"""The size of the store's files, and the free space of their disk, with gauges of both."""

from __future__ import annotations

import os

from attrs import frozen
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from harn.observability.metrics import GaugeValue, Metrics
from harn.server import Server

log = Logger(namespace="harn.statistics")

INTERVAL = 15.0
"""Seconds between two looks."""


@frozen
class DiskUse:
    """Bytes that the store's files take, and bytes that are free for this user on their disk."""

    store: int
    free: int


def measure(path: str) -> DiskUse:
    """
    Measure the database at ``path`` with its write-ahead log. Blocks.

    :raises OSError: the directory cannot be looked at.
    """
    size = 0
    for name in (path, path + "-wal", path + "-shm"):
        try:
            size += os.stat(name).st_size
        except FileNotFoundError:
            continue
    found = os.statvfs(os.path.dirname(os.path.abspath(path)))
    return DiskUse(size, found.f_bavail * found.f_frsize)


class DiskWatch(TimerService):
    """
    Measures the store's files every `INTERVAL`, in a thread.

    :ivar use: None before the first look, and for a store without files.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(INTERVAL, lambda: Deferred.fromCoroutine(self._look()))  # type: ignore[no-untyped-call]
        self.clock = server.reactor
        self.use: DiskUse | None = None
        self._server = server

    async def _look(self) -> None:
        path = self._server.store.location
        if path is None:
            return
        try:
            self.use = await self._server.in_thread(measure, path)
        except OSError as error:
            log.warn("the store's disk cannot be measured: {error}", error=str(error))


def add_disk_gauges(metrics: Metrics, disk: DiskWatch) -> None:
    """Add the gauges of the store's files and their disk; without a series before they are measured."""

    def store() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.store)}

    def free() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.free)}

    metrics.gauge("harn_store_bytes", "Size of the store's files.", store)
    metrics.gauge("harn_disk_free_bytes", "Free space on the store's disk.", free)
