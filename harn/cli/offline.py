"""Records out of the store of a state directory on which no server runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from attrs import frozen

from harn.orchestrator.operations import RecordInfo, describe_record
from harn.store.event_log import OURS, check_known
from harn.store.event_log import Record as StoredRecord
from harn.store.sqlite.event_log import SQLiteEventLog
from harn.store.sqlite.offline import open_readonly

DATABASE = "events.sqlite"
"""The database's name in a state directory; as `harn.store.sqlite.store` has it, whose import takes twice as long."""


@frozen
class StoredRecords:
    """
    Records from the database, opened for each look at it: a server may start, and move it, between two.

    :ivar state_dir: absolute.
    """

    state_dir: str

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """
        Give one page.

        :raises StateDirectoryUnusable: there is no database, or it is not ours.
        :raises EventLogUnavailable: it cannot be read.
        :raises RouteUnknown: there is no such topic.
        """
        with open_readonly(os.path.join(self.state_dir, DATABASE)) as store:
            page = plain(store.ask(SQLiteEventLog.read, topic, after, limit))
            if not page and topic not in OURS:
                check_known(topic, store.ask(SQLiteEventLog.topics))
            return page

    def newest(self, topic: str, count: int) -> Sequence[RecordInfo]:
        """Give the newest records, the oldest of them first; numbers may have gaps, so these may be fewer."""
        with open_readonly(os.path.join(self.state_dir, DATABASE)) as store:
            latest = store.ask(SQLiteEventLog.latest, topic)
            return plain(store.ask(SQLiteEventLog.read, topic, max(0, latest - count), count))


def plain(records: Iterable[StoredRecord]) -> tuple[RecordInfo, ...]:
    """Return records as the admin API gives them."""
    return tuple(describe_record(record, record.payload) for record in records)
