"""
The note of what runs: a file for each server, from which the next one reads which deliveries ran when it crashed.

It outlives the process, however that dies, since the kernel has what was written; nothing is forced to a disk, so that
after a failure of the whole system it may be old. An id in a note counts only while its delivery is unfinished and
still that server's. A thread of its own writes it: neither the reactor nor a commit waits.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from harn.store.worker import Worker

log = Logger(namespace="harn.store")

PREFIX = "running-"
"""A note's name begins so, and ends with its server's incarnation."""


class RunningNotes(Protocol):
    """The notes of all servers, for as long as this server may write its own. `RunningNote` keeps them in files."""

    def open(self, incarnation: int) -> None:
        """Begin this server's note."""

    def renumber(self, incarnation: int) -> None:
        """Keep this server's note under another number."""

    def begins(self, delivery_id: int) -> Deferred[None]:
        """See `IDeliveries.begins`."""

    def begins_at_once(self, delivery_id: int) -> None:
        """See `IDeliveries.begins_at_once`."""

    def note_now(self) -> None:
        """See `IDeliveries.note_now`."""

    def ended(self, *delivery_ids: int) -> None:
        """See `IDeliveries.ended`."""

    def read(self) -> Mapping[int, Collection[int]]:
        """
        Return by incarnation the ids of the deliveries that ran last. Called in the writer's thread.

        :raises OSError: the notes cannot be read.
        """

    def forget(self, incarnations: Collection[int]) -> None:
        """Remove the notes of servers that are gone, whose deliveries belong to others by now."""

    def close(self) -> Deferred[None]:
        """Remove this server's note, since this is not a crash. Called once, after `open`."""


class RunningNote:
    """
    Keeps this server's note in a file.

    What begins or ends in one turn of the reactor, or until the thread comes to write it, is written together.

    :param directory: where the notes are; it exists.
    """

    def __init__(self, directory: str, worker: Worker) -> None:
        self._directory = directory
        self._worker = worker
        self._running: set[int] = set()
        self._waiting: list[Deferred[None]] = []
        self._is_planned = self._posted = self._open = self._has_failed = self._is_changed = False
        self._path = ""
        self._descriptor: int | None = None

    def open(self, incarnation: int) -> None:
        """Start the worker; the file is made with the first delivery that runs."""
        self._path = os.path.join(self._directory, f"{PREFIX}{incarnation}")
        self._open = True
        self._worker.start()

    def renumber(self, incarnation: int) -> None:
        """See `RunningNotes.renumber`."""
        if self._open:
            self._worker.post(lambda: self._rename(os.path.join(self._directory, f"{PREFIX}{incarnation}")))

    def begins(self, delivery_id: int) -> Deferred[None]:
        """See `IDeliveries.begins`."""
        self._running.add(delivery_id)
        if not self._open:
            return succeed(None)
        noted: Deferred[None] = Deferred()
        self._waiting.append(noted)
        self._post()
        return noted

    def begins_at_once(self, delivery_id: int) -> None:
        """See `IDeliveries.begins_at_once`."""
        self._running.add(delivery_id)
        self._is_changed = True
        if not self._is_planned:
            self._plan()

    def note_now(self) -> None:
        """See `IDeliveries.note_now`."""
        if self._is_changed:
            self._post()

    def ended(self, *delivery_ids: int) -> None:
        """See `IDeliveries.ended`."""
        self._running.difference_update(delivery_ids)
        self._is_changed = True
        if not self._is_planned:
            self._plan()

    def read(self) -> Mapping[int, Collection[int]]:
        """See `RunningNotes.read`."""
        return read_notes(self._directory)

    def forget(self, incarnations: Collection[int]) -> None:
        """See `RunningNotes.forget`."""
        if self._open:
            self._worker.post(lambda: _remove(self._directory, incarnations))

    def close(self) -> Deferred[None]:
        """See `RunningNotes.close`."""
        self._open = False
        self._worker.post(self._discard)
        return self._worker.stop()

    def _plan(self) -> None:
        """
        Write the running deliveries at the end of this turn, in which many may begin and end.

        Its call leaves then, too, or after `note_now`: the note is on its way before a handler can do anything.
        """
        self._is_planned = True
        self._worker.soon(self._turn_ended)

    def _turn_ended(self) -> None:
        self._is_planned = False
        if self._is_changed:
            self._post()

    def _post(self) -> None:
        self._is_changed = False
        if self._open and not self._posted:
            self._posted = True
            self._worker.post(self._write_latest)

    def _failed(self, failure: OSError) -> None:
        log.warn(
            "{path} cannot be written: {why}; after a crash it is not known which deliveries were running",
            path=self._path,
            why=failure.strerror,
        )

    @staticmethod
    def _noted(waiting: list[Deferred[None]]) -> None:
        for noted in waiting:
            noted.callback(None)

    # In the thread:

    def _write_latest(self) -> None:
        """
        Write the running deliveries now. The reactor is woken only for callers that wait, and for the first of some
        failures.

        What changes after the first line is written by another call. Whoever waits has added the id to what runs before
        the Deferred to what waits, so that what is read here second has the id of each Deferred that is read first.
        """
        self._posted = False
        waiting, self._waiting = self._waiting, []
        failure = self._write(tuple(self._running))
        if failure is not None and not self._has_failed:
            self._worker.report(self._failed, failure)
        self._has_failed = failure is not None
        if waiting:
            self._worker.report(self._noted, waiting)

    def _write(self, running: Collection[int]) -> OSError | None:
        """Write the ids in one line; what follows it in the file is ignored."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            os.pwrite(self._descriptor, f"{' '.join(map(str, running))}\n".encode(), 0)
        except OSError as error:
            return error
        return None

    def _rename(self, path: str) -> None:
        self._discard()
        self._path = path
        self._write(tuple(self._running))

    def _discard(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
            _unlink(self._path)


def read_notes(directory: str) -> Mapping[int, tuple[int, ...]]:
    """
    Return by incarnation the ids of the deliveries that ran last. Blocks.

    :raises OSError: the directory cannot be read.
    """
    found: dict[int, tuple[int, ...]] = {}
    for name in _names(os.listdir(directory)):
        try:
            with open(os.path.join(directory, name), "rb") as file:
                line = file.readline()
        except OSError as error:
            log.warn("{name} cannot be read, and is ignored: {why}", name=name, why=error.strerror)
            continue
        words = line.split() if line.endswith(b"\n") else []
        found[int(name.removeprefix(PREFIX))] = tuple(int(word) for word in words if word.isdigit())
    return found


def _names(entries: Iterable[str]) -> list[str]:
    return [name for name in entries if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal()]


def _remove(directory: str, incarnations: Collection[int]) -> None:
    for incarnation in incarnations:
        _unlink(os.path.join(directory, f"{PREFIX}{incarnation}"))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warn("{path} cannot be removed: {why}", path=path, why=error.strerror)
