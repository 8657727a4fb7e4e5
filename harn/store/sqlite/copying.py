"""
Copies of a database beside one that is in use: whole, checked, and on disk before they get their name.

A copy is read within one transaction of SQLite's, so that it is the state of one moment, however long it takes; with a
write-ahead log that holds up no writer. Only what is written meanwhile stays in the log, which is cut back afterwards.
Everything here blocks: it runs in a thread, or in a command.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from msgspec import Struct

from harn.errors import BackupFailed, BackupRefused
from harn.store.backup import BackupOrigin, Contents, Finding
from harn.store.sqlite.checking import check_database, read_contents, read_origin, remove_origin, write_origin
from harn.store.sqlite.connection import APPLICATION_ID, check_schema
from harn.store.sqlite.migrations import SCHEMA_VERSION

SLICE = 256
"""Pages of one step of a copy (1 MiB): between two it may be stopped."""
FLUSHED = 16 << 20
"""Bytes after which what is written is forced to the disk: at the end, all at once, it would hold up other writes."""
CHECKED = 200_000
"""Steps of SQLite's machine after which a check looks whether it is to stop."""
SUFFIX = ".part"
"""What follows the name of a file until it is complete."""

_MAGIC = b"SQLite format 3\x00"
_APPLICATION_AT = slice(68, 72)

Stopped = Callable[[], bool]
"""Returns whether to give up; called often, in the thread that works."""


def never() -> bool:
    """Return False: nothing stops a command but its end."""
    return False


class Copied(Struct, frozen=True, kw_only=True):
    """A file that is complete: its size in bytes, its contents, and what is wrong with some of its rows."""

    size: int
    contents: Contents
    origin: BackupOrigin | None
    findings: tuple[Finding, ...] = ()


def back_up(database: str, file: str, origin: BackupOrigin, *, replaces: bool, is_stopped: Stopped = never) -> Copied:
    """
    Copy a database, which a server may use, into ``file``, for its owner alone.

    :param replaces: whether a backup that is there gives way.
    :raises BackupRefused: the file cannot be written to, or is there already.
    :raises BackupFailed: the copy is not complete, or not sound; nothing is left of it.
    """
    with _failing(f"no backup to {file}"), _beside(file, replaces, database) as part:
        with _reading_live(database) as source:
            part.check_room(source)
            with _target(part.path) as target:
                _copy(source, target, part, is_stopped)
                write_origin(target, origin)
        copied = _checked(part, is_stopped)
        part.publish()
        return copied


def restore(file: str, database: str, *, is_stopped: Stopped = never) -> Copied:
    """
    Make the database of an empty state directory, which the caller holds, out of a backup.

    :raises BackupRefused, BackupFailed: as `back_up` does.
    """
    with _failing(f"nothing restored from {file}"), _beside(database, False, file) as part:
        with _reading(file) as source:
            part.check_room(source)
            with _target(part.path) as target:
                _copy(source, target, part, is_stopped)
        copied = _checked(part, is_stopped)
        with _target(part.path) as target:
            remove_origin(target)
        part.publish()
        return copied


def examine(file: str, is_stopped: Stopped = never) -> Copied:
    """
    Check a backup and return its contents.

    :raises BackupRefused: it is something else, or of a newer harn.
    :raises BackupFailed: it is not sound.
    """
    with _failing(f"{file} cannot be restored"), _reading(file) as connection:
        return _described(file, connection, is_stopped)


def refuse_foreign(path: str) -> None:
    """
    Refuse a file that is missing or something else, by its first bytes.

    :raises BackupRefused: says which.
    """
    if not os.path.isfile(path):
        raise BackupRefused(f"there is no file {path}")
    if not is_ours(path):
        raise BackupRefused(f"{path} is neither a backup nor an event log of harn's")


def is_ours(path: str) -> bool:
    """Return whether a file is a database of harn's, by its first bytes."""
    try:
        with open(path, "rb") as opened:
            return _begins_ours(opened.read(100))
    except OSError:
        return False


def _begins_ours(head: bytes) -> bool:
    return head.startswith(_MAGIC) and head[_APPLICATION_AT] == APPLICATION_ID.to_bytes(4, "big")


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """
    Convert failures of SQLite and the system into messages.

    :raises BackupFailed: with what failed, why, and what to do.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise BackupFailed(f"{what}: {_advice(code, str(error))}") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise BackupFailed(f"{what}: {_advice(sqlite3.SQLITE_FULL if full else 0, error.strerror or '')}") from error


def _advice(code: int, why: str) -> str:
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full; make room on it, or choose another place"
    if code == sqlite3.SQLITE_INTERRUPT:
        return "it was stopped before it was complete"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{why}; see harn orchestrator check --store, and keep the last good backup"
    return f"{why}; try again"


@contextmanager
def _reading_live(path: str) -> Iterator[sqlite3.Connection]:
    """
    Read a server's database within one transaction.

    The file is opened by SQLite alone: where this process has it open as well, to close it would end SQLite's locks.

    :raises StateDirectoryUnusable: it is something else.
    """
    with _transaction(f"file:{quote(path)}?mode=ro", path) as connection:
        yield connection


@contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection]:
    """
    Read a backup, or the database of a server that has ended, within one transaction, and leave it as it is.

    :raises BackupRefused: it is missing, or something else.
    """
    refuse_foreign(path)
    # Without a log beside it nothing writes to it; and where it lies SQLite may not be able to make one.
    alone = "" if os.path.exists(path + "-wal") else "&immutable=1"
    with _transaction(f"file:{quote(path)}?mode=ro{alone}", path) as connection:
        yield connection


@contextmanager
def _transaction(uri: str, path: str) -> Iterator[sqlite3.Connection]:
    """
    Open a database, and keep it on one state.

    :raises BackupRefused: a newer harn wrote it.
    """
    connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)
    try:
        connection.execute("BEGIN")
        version = check_schema(connection, path)
        if version is None:
            raise BackupRefused(f"{path} is empty: none of our tables is in it")
        if version > SCHEMA_VERSION:
            raise BackupRefused(
                f"{path} was written by a newer harn (schema {version}, this one supports {SCHEMA_VERSION});"
                " install that version"
            )
        yield connection
    finally:
        connection.close()


@contextmanager
def _target(path: str) -> Iterator[sqlite3.Connection]:
    """Open the file to write to; it has no journal, since what is not complete is dropped."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = OFF").fetchone()
        yield connection
    finally:
        connection.close()


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, part: _Part, is_stopped: Stopped) -> None:
    flushed = 0

    def step(status: int, remaining: int, total: int) -> None:
        nonlocal flushed
        if is_stopped():
            raise BackupFailed("it was stopped before it was complete")
        size = os.fstat(part.descriptor).st_size
        if size - flushed >= FLUSHED:
            os.fdatasync(part.descriptor)
            flushed = size

    source.backup(target, pages=SLICE, progress=step, sleep=0.0)
    # The header that was copied says that there is a write-ahead log: a single file it is only without.
    target.execute("PRAGMA journal_mode = DELETE").fetchone()


def _checked(part: _Part, is_stopped: Stopped) -> Copied:
    """
    Check a copy.

    :raises BackupFailed: it is not sound.
    """
    connection = sqlite3.connect(f"file:{quote(part.path)}?mode=ro", uri=True, isolation_level=None)
    try:
        connection.execute("BEGIN")
        return _described(part.path, connection, is_stopped)
    finally:
        connection.close()


def _described(path: str, connection: sqlite3.Connection, is_stopped: Stopped) -> Copied:
    """
    Check a file and count what is in it.

    :raises BackupFailed: it is damaged.
    """
    connection.set_progress_handler(lambda: is_stopped() or None, CHECKED)
    findings = check_database(connection)
    damages = [each for each in findings if each.is_damage]
    if damages:
        shown = "; ".join(each.what for each in damages[:3])
        raise BackupFailed(f"{path.removesuffix(SUFFIX)} would not be sound: {shown}; {damages[0].hint}")
    return Copied(
        size=os.path.getsize(path),
        contents=read_contents(connection),
        origin=read_origin(connection),
        findings=tuple(findings),
    )


class _Part:
    """
    A file that is being written, under a name of its own; locked, so that two do not write to one.

    :ivar descriptor: open for as long as it is written.
    """

    def __init__(self, file: str, replaces: bool) -> None:
        self.path = file + SUFFIX
        self._file = file
        self._replaces = replaces
        # Nothing else of this process has it open but SQLite, whose connections are closed before this is.
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self) -> None:
        """
        Empty it, which a process that was killed may have left.

        :raises BackupRefused: another process writes to it, or it is something else.
        """
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupRefused(f"another backup to {self._file} is under way; wait for it") from None
        head = os.pread(self.descriptor, 100, 0)
        if head.strip(b"\0") and not _begins_ours(head):  # the first page may not have been written so far
            raise BackupRefused(f"{self.path} exists, and is not part of a backup; choose another name")
        os.fchmod(self.descriptor, 0o600)
        os.ftruncate(self.descriptor, 0)

    def check_room(self, source: sqlite3.Connection) -> None:
        """
        Look whether the disk has room for a copy.

        :raises BackupFailed: it has not; says how much there is.
        """
        (pages,), (size,) = (source.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        found = os.fstatvfs(self.descriptor)
        free, needed = found.f_bavail * found.f_frsize, pages * size
        if free < needed:
            raise BackupFailed(
                f"no room for {self._file}: {needed / 1e6:,.0f} MB are needed, and {free / 1e6:,.0f} MB are free;"
                " make room, or choose another place"
            )

    def publish(self) -> None:
        """
        Write it to the disk, and give it its name.

        :raises BackupRefused: the name was taken meanwhile.
        """
        os.fsync(self.descriptor)
        if self._replaces:
            os.replace(self.path, self._file)
        else:
            try:
                os.link(self.path, self._file)
            except FileExistsError:
                raise BackupRefused(f"{self._file} was made by another program meanwhile") from None
            os.unlink(self.path)
        directory = os.open(os.path.dirname(os.path.abspath(self._file)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextmanager
def _beside(file: str, replaces: bool, other: str) -> Iterator[_Part]:
    """
    Write a file beside its name; nothing is left of one that is not published.

    :param other: the database that is copied.
    :raises BackupRefused: the file is there already, or cannot be made.
    """
    _check_name(file, replaces, other)
    try:
        part = _Part(file, replaces)
    except OSError as error:
        raise BackupRefused(f"{file} cannot be written: {error.strerror}; choose another place") from error
    try:
        part.take()
        try:
            yield part
        finally:
            with suppress(OSError):
                os.unlink(part.path)  # published, it has its name
    finally:
        os.close(part.descriptor)


def _check_name(file: str, replaces: bool, other: str) -> None:
    if not os.path.lexists(file):
        return
    if os.path.exists(file) and os.path.samefile(file, other):
        raise BackupRefused(f"{file} is the event log itself; choose another name")
    if not replaces:
        raise BackupRefused(f"{file} exists already; choose another name, or give --force to replace it")
    if os.path.islink(file) or not os.path.isfile(file) or not is_ours(file):
        raise BackupRefused(f"{file} is not a backup, so that --force does not replace it; choose another name")
