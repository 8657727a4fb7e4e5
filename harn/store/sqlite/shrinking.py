"""
Pages that nothing uses any more, given back to the file system: a few in each transaction.

A file that is made today notes for each page what points to it (``auto_vacuum = INCREMENTAL``), so that the last pages
can be moved to free ones before them. One of an earlier version does not; `harn orchestrator compact` changes that.
"""

from __future__ import annotations

from harn.store.sqlite.session import Session

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
