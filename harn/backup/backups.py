"""
Backups that a running server makes of itself, off the reactor thread, one at a time; and the operation for them.

What of the state directory goes into one is the event log, and the key of the digests of secrets.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Annotated, Any

from msgspec import Meta
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

import harn
from harn.clocks import WallTime, rfc3339
from harn.errors import BackupFailed, BackupRefused, StateDirectoryUnusable
from harn.operations.model import Caller, Post, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.store.backup import BackupOrigin, Contents
from harn.store.lock import LOCK_FILE, StateDirectoryLock
from harn.store.sqlite.copying import Copied, refuse_foreign, restore
from harn.store.sqlite.copying import back_up as write_backup
from harn.store.worker import ThreadWorker, run_in

DATABASE = "events.sqlite"
DIGEST_KEY = "digest.key"
"""The key that makes digests of secrets useless to others."""

_OF_THE_SERVER = ("events.sqlite", "orchestrator-state.json", "running-", LOCK_FILE, "token", DIGEST_KEY)
"""How names of the server's own files begin."""
_OF_THE_SYSTEM = (LOCK_FILE, "lost+found")
"""What an empty state directory may hold."""


def database_of(state_dir: str) -> str:
    """Return the path of the event log."""
    return os.path.join(state_dir, DATABASE)


def origin_now(state_dir: str, now: float) -> BackupOrigin:
    """Return the origin that a backup of ``state_dir`` would record now, beside the event log."""
    key: bytes | None = None
    with suppress(FileNotFoundError), open(os.path.join(state_dir, DIGEST_KEY), "rb") as file:
        key = file.read()
    return BackupOrigin(made_at=now, harn_version=harn.__version__, host=socket.gethostname(), digest_key=key)


def check_place(file: str, state_dir: str) -> None:
    """
    Refuse to write a backup under the name of one of the server's own files.

    :raises BackupRefused: it is one, or a directory.
    """
    directory, name = os.path.split(file)
    if not name or os.path.isdir(file):
        raise BackupRefused(f"{file} is a directory; give the backup a name in it")
    if not os.path.isdir(directory or "."):
        raise BackupRefused(f"there is no directory {directory}; make it, or choose another place")
    if os.path.realpath(directory or ".") == os.path.realpath(state_dir) and name.startswith(_OF_THE_SERVER):
        raise BackupRefused(f"{file} is the name of a file of the server's own; choose another name")


def restore_into(state_dir: str, file: str) -> Copied:
    """
    Make an empty state directory, which is made if it is missing, one that a server can continue from.

    :raises BackupRefused: it is not empty, or the file is not a backup, or a newer version's.
    :raises BackupFailed: the backup is not sound, or there is no room; the directory is as before.
    :raises StateDirectoryUnusable: a server holds it, or it cannot be used.
    """
    refuse_foreign(file)  # before the directory is made
    refuse_filled(state_dir)
    lock = StateDirectoryLock(state_dir)
    lock.acquire()
    try:
        refuse_filled(state_dir)
        copied = restore(file, database_of(state_dir))
        if copied.origin is not None and copied.origin.digest_key is not None:
            try:
                _write_key(state_dir, copied.origin.digest_key)
            except OSError as error:
                for name in (DATABASE, DIGEST_KEY):
                    with suppress(OSError):
                        os.unlink(os.path.join(state_dir, name))
                raise BackupFailed(
                    f"nothing restored from {file}: {DIGEST_KEY}: {error.strerror}; try again"
                ) from error
        return copied
    finally:
        lock.release()


def refuse_filled(state_dir: str) -> None:
    """
    Refuse a directory that something is in.

    :raises BackupRefused: names what is there, and says what to do.
    :raises StateDirectoryUnusable: it is not a directory, or cannot be read.
    """
    try:
        found = sorted(name for name in os.listdir(state_dir) if name not in _OF_THE_SYSTEM)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateDirectoryUnusable(f"the state directory {state_dir} cannot be read: {error.strerror}") from error
    if found:
        shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise BackupRefused(
            f"{state_dir} is not empty ({shown}), and a backup is restored into an empty state directory only; stop"
            f" the server on it if one runs and move it away (mv {state_dir} {state_dir}.before), or name another"
            " with --state-dir"
        )


def _write_key(state_dir: str, key: bytes) -> None:
    descriptor = os.open(
        os.path.join(state_dir, DIGEST_KEY), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())


class BackupInfo(Result, frozen=True, kw_only=True):
    """A backup, and its contents."""

    file: Annotated[str, Meta(description="On the machine of the server that wrote it.")]
    bytes: int
    made_at: Annotated[str | None, Meta(description="Everything that was accepted before is in it.")]
    harn_version: str | None
    host: str | None
    has_digest_key: bool
    schema: int
    generation: Annotated[int, Meta(description="The newest that served; 0 for none.")]
    generations: Annotated[int, Meta(description="How many are kept with their manifests and code.")]
    deliveries: Annotated[dict[str, int], Meta(description="How many, by state.")]
    records: Annotated[int, Meta(description="Of topics that are appended.")]
    last_received_at: str | None
    warnings: Annotated[tuple[str, ...], Meta(description="What is wrong with some of its rows.")] = ()


class Restored(Result, frozen=True, kw_only=True):
    """A restored backup, or one that would be, and the state directory."""

    state_dir: str
    dry_run: bool
    refused: Annotated[str | None, Meta(description="Of a dry run: why the directory would not be used.")] = None
    backup: BackupInfo


class Problem(Result, frozen=True, kw_only=True):
    """Something that is wrong with a store, and what to do."""

    what: str
    hint: str


class StoreReport(Result, frozen=True, kw_only=True):
    """The result of a check of a store; ``status`` is ``ok`` or ``error``."""

    status: str
    file: str
    bytes: int
    free_bytes: Annotated[int, Meta(description="Of the file, in pages that hold nothing.")]
    shrinks: Annotated[bool, Meta(description="Whether the file becomes smaller when rows are removed.")]
    schema: int | None
    deliveries: dict[str, int]
    problems: tuple[Problem, ...]
    whole: Annotated[bool, Meta(description="Whether everything was read; else no deliveries were counted.")] = True


def describe(file: str, copied: Copied) -> BackupInfo:
    """Return the description of a backup."""
    contents, origin = copied.contents, copied.origin
    return BackupInfo(
        file=file,
        bytes=copied.size,
        made_at=None if origin is None else rfc3339(origin.made_at),
        harn_version=None if origin is None else origin.harn_version,
        host=None if origin is None else origin.host,
        has_digest_key=origin is not None and origin.digest_key is not None,
        schema=contents.schema,
        generation=contents.generation,
        generations=contents.generations,
        deliveries=dict(contents.deliveries),
        records=contents.records,
        last_received_at=received(contents),
        warnings=tuple(f"{each.what}; {each.hint}" for each in copied.findings),
    )


def received(contents: Contents) -> str | None:
    """Return when the newest delivery was accepted."""
    return None if contents.last_received_at is None else rfc3339(contents.last_received_at)


class BackUp(Parameters, frozen=True, kw_only=True):
    """Where to."""

    file: Annotated[str, Meta(description="An absolute path on the server's machine; its directory exists.")]
    force: Annotated[bool, Meta(description="Replace a backup of that name.")] = False

    def __post_init__(self) -> None:
        """
        Refuse a path that depends on where the server was started.

        :raises ValueError: it is not absolute.
        """
        if not os.path.isabs(self.file) or "\0" in self.file:
            raise ValueError(f"file must be an absolute path, got {self.file!r}")


@operation(
    "backup",
    role=Role.ADMIN,
    route=Post("/backup"),
    example={"file": "/var/backups/harn.backup"},
    audit=lambda made: {"bytes": made.bytes, "deliveries": sum(made.deliveries.values())},
)
async def back_up(backups: Backups, caller: Caller, wanted: BackUp) -> BackupInfo:
    """
    Write a backup of the running server into one file on its machine.

    :raises BackupRefused: it cannot be written there, or another is under way.
    :raises BackupFailed: it is not complete, or not sound; nothing is left of it.
    """
    return describe(wanted.file, await backups.make(wanted.file, replaces=wanted.force))


OPERATIONS = (back_up,)
"""Those of `Backups`."""


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

        :param file: its absolute path.
        :param replaces: whether a backup that is there gives way.
        :raises BackupRefused: it cannot be written there, or another is under way.
        :raises BackupFailed: it is not complete, or not sound.
        """
        if self._database is None:
            raise BackupRefused("the store of this server is a database elsewhere, not a file: back it up with pg_dump")
        if self._running is not None:
            raise BackupRefused("a backup is under way; wait for it")
        database, state_dir, now = self._database, self._state_dir, self._wall.seconds()

        def write() -> Copied:
            _step_back()
            check_place(file, state_dir)
            return write_backup(
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
