"""
Where the records of a topic come from: a running server, or, when none runs, its store.

A source gives records as the admin API does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from attrs import frozen

from harn.cli.client import AdminClient
from harn.cli.operations import ask
from harn.orchestrator.operations import ReadEvents, RecordInfo, read_events

LARGEST_PAGE = 1000
"""Records that the admin API gives at once."""


class RecordSource(Protocol):
    """Gives the records of a topic."""

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """Give up to ``limit`` (at most `LARGEST_PAGE`) records with a number above ``after``, by number."""


@frozen
class ServerRecords:
    """Records from a running server."""

    client: AdminClient

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """Ask for one page."""
        answered = ask(self.client, read_events, ReadEvents(topic=topic, after=after, limit=limit))
        records: Sequence[RecordInfo] = answered.result.records
        return records


def read_pages(source: RecordSource, topic: str, after: int, limit: int | None) -> Iterator[RecordInfo]:
    """Give all records above ``after``, or the first ``limit`` of them, a page at a time."""
    left = limit
    while left is None or left > 0:
        page = source.read(topic, after, LARGEST_PAGE if left is None else min(left, LARGEST_PAGE))
        yield from page
        if not page:
            return
        after = page[-1].number
        if left is not None:
            left -= len(page)
