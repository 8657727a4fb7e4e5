"""
Where the records of a topic come from: a running server, or, when none runs, its store.

A source gives records as the admin API writes them: mappings with ``number kind payload headers occurred_at``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

from attrs import frozen

from harn.cli.client import AdminClient

LARGEST_PAGE = 1000
"""Records that the admin API gives at once."""

Record = Mapping[str, Any]


class RecordSource(Protocol):
    """Gives the records of a topic."""

    def read(self, topic: str, after: int, limit: int) -> Sequence[Record]:
        """Give up to ``limit`` (at most `LARGEST_PAGE`) records with a number above ``after``, by number."""


@frozen
class ServerRecords:
    """Records from a running server."""

    client: AdminClient

    def read(self, topic: str, after: int, limit: int) -> Sequence[Record]:
        """Ask for one page."""
        answer = self.client.get(f"/admin/events/{quote(topic, safe='')}?after={after}&limit={limit}")
        records: Sequence[Record] = answer.expect_list("records")
        return records


def read_pages(source: RecordSource, topic: str, after: int, limit: int | None) -> Iterator[Record]:
    """Give all records above ``after``, or the first ``limit`` of them, a page at a time."""
    left = limit
    while left is None or left > 0:
        page = source.read(topic, after, LARGEST_PAGE if left is None else min(left, LARGEST_PAGE))
        yield from page
        if not page:
            return
        after = page[-1]["number"]
        if left is not None:
            left -= len(page)
