"""Writing to the database of a state directory on which no server runs: plain calls, in one durable transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.store.event_log import Payload, encode_record
from harn.store.generations import encode_checkpoints
from harn.store.sqlite.connection import Session, check_schema, unreadable
from harn.store.sqlite.event_log import Append
from harn.store.sqlite.generations import put_all
from harn.store.sqlite.migrations import SCHEMA_VERSION


@contextmanager
def write_offline(path: str) -> Iterator[Session]:
    """
    Run the writes of a session as one transaction; the caller holds the state directory's lock.

    :raises StateDirectoryUnusable: there is no database, it is not harn's, or its schema is another one.
    :raises EventLogUnavailable: it cannot be written; nothing was.
    """
    if not os.path.exists(path):
        raise StateDirectoryUnusable(f"there is no event log at {path}; has a server run on this state directory?")
    connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=5.0, isolation_level=None)
    try:
        version = check_schema(connection, path)
        if version != SCHEMA_VERSION:
            raise StateDirectoryUnusable(
                f"{path} has the schema {version}, this harn writes {SCHEMA_VERSION}; start a server on its state"
                " directory once, which brings it up to date"
            )
        connection.execute("PRAGMA synchronous = FULL")
        session = Session(connection, 0)
        session.begin()
        yield session
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise EventLogUnavailable(unreadable(path, error)) from error
    finally:
        connection.close()  # rolls back what was not committed


def put_checkpoint(session: Session, name: str, value: Any) -> None:
    """Keep a value under a name; None removes it."""
    put_all(session, encode_checkpoints({name: value}))


def append_record(
    session: Session, topic: str, kind: str, payload: Payload, now: float, headers: Mapping[str, str] = {}
) -> None:
    """Append a record of a topic; ``now`` is seconds, Unix."""
    Append.write_all(session, [Append(topic, kind, *encode_record(payload, headers), now)], now)
