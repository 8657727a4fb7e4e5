"""The check of a state directory's event log, with or without a running server; and compacting its file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from urllib.parse import quote

from msgspec import structs

from harn.backup.backups import DATABASE, Problem, StoreReport, database_of
from harn.errors import BackupFailed, StateDirectoryUnusable
from harn.reload.archive import MOST_KEPT, read_kept_bundle, read_manifest_text
from harn.store.backup import Contents, Finding
from harn.store.lock import StateDirectoryLock
from harn.store.sqlite.checking import check_database, look_at_database, read_contents
from harn.store.sqlite.connection import RESTORE_ADVICE as RESTORE
from harn.store.sqlite.connection import check_schema, unreadable
from harn.store.sqlite.mark import HighWaterMark
from harn.store.sqlite.migrations import SCHEMA_VERSION
from harn.store.sqlite.offline import read_offline
from harn.store.sqlite.schema import rebuild_indices

STATE_FILE = "orchestrator-state.json"
BEGIN_ANEW = "to begin with an empty event log, move the whole state directory away"


LARGEST_LOOKED_AT = 64 * 1024 * 1024
"""Bytes of the largest database of which a look reads all pages."""


def check_store(state_dir: str, *, whole: bool = True) -> StoreReport:
    """
    Check everything, on one state of the event log; changes nothing.

    :param whole: read everything, which takes minutes for a large one; else have a look, which takes moments: schema,
        losses, the newest deliveries, and all pages of a small one. Its report counts no deliveries.
    :raises StateDirectoryUnusable: there is no event log, and no trace of one.
    """
    path = database_of(state_dir)
    missing = _missing(path, state_dir)
    if missing is not None:
        return _report(path, [missing])
    try:
        noted = HighWaterMark(path).read()  # before the transaction begins: a server may write meanwhile
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        return _report(path, [Finding(what=f"{path} cannot be read: {error}", hint=RESTORE)])
    try:
        connection.execute("BEGIN")
        version = check_schema(connection, path)
        if version is None:
            return _report(path, [_empty(path)])
        if not whole:
            with_pages = os.path.getsize(path) <= LARGEST_LOOKED_AT
            found = look_at_database(connection, noted, with_pages=with_pages)
            return structs.replace(_report(path, found, connection, None, version), whole=False)
        findings = check_database(connection, noted)
        contents = None
        if not findings and version >= SCHEMA_VERSION:
            findings += _damaged_content(path, connection)
        if not findings:
            contents = read_contents(connection)
        return _report(path, findings, connection, contents, version)
    except StateDirectoryUnusable as error:
        return _report(path, [Finding(what=str(error), hint=f"{RESTORE}; {BEGIN_ANEW}")])
    except sqlite3.Error as error:
        return _report(path, [Finding(what=unreadable(path, error), hint=RESTORE)])
    finally:
        connection.close()


def _missing(path: str, state_dir: str) -> Finding | None:
    """
    Return a finding where there should be an event log, and it is missing or empty.

    :raises StateDirectoryUnusable: nothing says that there should be one.
    """
    if os.path.exists(path):
        return _empty(path) if not os.path.getsize(path) and not os.path.exists(path + "-wal") else None
    if os.path.exists(os.path.join(state_dir, STATE_FILE)) or os.path.exists(HighWaterMark(path).path):
        return Finding(
            what=f"{path} is missing, though a server has run here", hint=f"put it back, or {RESTORE}; {BEGIN_ANEW}"
        )
    raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")


def _empty(path: str) -> Finding:
    return Finding(what=f"{path} is empty: none of our tables is in it", hint=f"{RESTORE}; {BEGIN_ANEW}")


def _damaged_content(path: str, connection: sqlite3.Connection) -> Iterator[Finding]:
    """Yield the generations whose manifest or code is not what was put there."""
    store = read_offline(path, connection)
    for record in store.ask(store.generations.history(MOST_KEPT)):
        if not record.manifest_digest:
            continue
        text = store.ask(store.generations.manifest(record.manifest_digest))
        data = store.ask(store.generations.bundle(record.bundle_id))
        try:
            read_manifest_text(text or b"", record.manifest_digest)
            read_kept_bundle(data or b"", record.bundle_id)
        except ValueError as error:
            yield Finding(
                what=f"the content of generation {record.number} is damaged: {error}",
                hint="it cannot be rolled back to; a reload of the files makes a new generation that can",
            )


def _report(
    path: str,
    findings: list[Finding],
    connection: sqlite3.Connection | None = None,
    contents: Contents | None = None,
    schema: int | None = None,
) -> StoreReport:
    free, shrinks = (0, False) if connection is None else _free(connection)
    return StoreReport(
        status="error" if findings else "ok",
        file=path,
        bytes=os.path.getsize(path) if os.path.exists(path) else 0,
        free_bytes=free,
        shrinks=shrinks,
        schema=schema,
        deliveries={} if contents is None else dict(contents.deliveries),
        problems=tuple(Problem(what=each.what, hint=each.hint) for each in findings),
    )


def _free(connection: sqlite3.Connection) -> tuple[int, bool]:
    try:
        (free,), (size,), (mode,) = (
            connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size", "auto_vacuum")
        )
    except sqlite3.Error:
        return 0, False
    return free * size, mode > 0


def compact(state_dir: str) -> tuple[int, int]:
    """
    Make the event log of a server that does not run as small as it can be, with new indices, and able to shrink by
    itself from then on; return its size before and after, in bytes.

    :raises StateDirectoryUnusable: a server holds the directory, or there is no event log.
    :raises BackupFailed: there is no room for the copy that it takes; everything is as before.
    """
    path = database_of(state_dir)
    if not os.path.exists(path):
        raise StateDirectoryUnusable(f"there is no {DATABASE} in {state_dir}; has a server run on it?")
    lock = StateDirectoryLock(state_dir)
    lock.acquire()
    try:
        before = os.path.getsize(path)
        _rewrite(path)
        return before, os.path.getsize(path)
    finally:
        lock.release()


def _rewrite(path: str) -> None:
    connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=5.0, isolation_level=None)
    try:
        version = check_schema(connection, path)
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()  # with a log the file would be written twice
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if version == SCHEMA_VERSION:  # an older one gets its indices at the next start
            rebuild_indices(connection)  # VACUUM copies them as they are
        connection.execute("VACUUM")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        why = "its disk has no room for the copy that this takes; make room" if full else unreadable(path, error)
        raise BackupFailed(f"{path} is not compacted: {why}") from error
    finally:
        connection.close()
