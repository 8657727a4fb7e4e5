"""
Retention: rows that the policy does not keep are found by an index and not by a scan, and pages are given back.

Pages that nothing uses after that are given back to the file system, a few in each transaction. A file that is made
today notes for each page what points to it (``auto_vacuum = INCREMENTAL``), so that the last pages can be moved to free
ones before them. One of an earlier version does not; `harn orchestrator compact` changes that.
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3

from harn.store.sqlite import recovery
from harn.store.sqlite.claims import EXPIRED
from harn.store.sqlite.connection import Session
from harn.store.sqlite.event_log import LOG
from harn.store.sqlite.generations import GENERATIONS
from harn.store.sqlite.jobs import JOBS
from harn.store.sqlite.statistics import TOTALS
from harn.store.trimming import Trimming, TrimStatements

_THESE = "IN (SELECT value FROM json_each(?))"


class SQLiteTrimming(Trimming):
    """Retention on SQLite."""

    sql = TrimStatements(
        claims=EXPIRED,
        finished=(
            "SELECT d.id, length(e.envelope) + length(e.body) FROM deliveries d JOIN events e ON e.id = d.id"
            " WHERE d.state >= 2 AND d.state = ? AND d.settled_at < ? ORDER BY d.settled_at LIMIT ?"
        ),
        remove=(
            "DELETE FROM attempts WHERE delivery_id " + _THESE,
            "DELETE FROM events WHERE id " + _THESE,
            "DELETE FROM deliveries WHERE id " + _THESE,
        ),
        log=LOG,
        jobs=JOBS,
        totals=TOTALS,
        generations=GENERATIONS,
    )

    def trim_servers(self, session: Session, before: float) -> int:
        """See `Trimming.trim_servers`."""
        return recovery.trim_servers(session, before)

    def used_bytes(self, session: Session) -> int:
        """See `Trimming.used_bytes`."""
        return used_bytes(session.connection)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Measure the data: the database without the pages that are free for use."""
    (pages,), (free,), (size,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


KEPT = 1024
"""Free pages (4 MiB) that stay in the file in any case: what comes next needs them."""
SHARE = 8
"""One page of so many that hold data stays, too: to give pages back that are needed within the hour costs twice."""


def shrink(session: Session, pages: int) -> int:
    """
    Return ``pages`` free pages or fewer to the file system, within the caller's transaction; give their number.

    0 once few enough are free.
    """
    execute = session.connection.execute
    (mode,), (total,), (free,) = (
        execute(f"PRAGMA {name}").fetchone() for name in ("auto_vacuum", "page_count", "freelist_count")
    )
    wanted = min(pages, free - max(KEPT, (total - free) // SHARE))
    if mode == 0 or wanted <= 0:
        return 0
    for _ in range(wanted):
        execute("PRAGMA incremental_vacuum(1)")  # of a larger number Python runs the first step alone
    (left,) = execute("PRAGMA page_count").fetchone()
    return int(total - left)
