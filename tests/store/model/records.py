"""The log's own records, as a store in memory keeps them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harn.store.event_log import Record


class Records:
    """Records by number, of all topics except views."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._highest = 0

    def append(self, topic: str, kind: str, payload: bytes, headers: bytes, at: float) -> int:
        """Keep one, whose payload and headers are JSON; give its number."""
        self._highest += 1
        record = Record(
            number=self._highest,
            topic=topic,
            kind=kind,
            payload=msgspec.json.decode(payload),
            headers=msgspec.json.decode(headers),
            occurred_at=at,
        )
        self._records.append(record)
        return record.number

    def of(self, topic: str) -> Sequence[Record]:
        """Return all records of a topic."""
        return [record for record in self._records if record.topic == topic]

    def topics(self) -> set[str]:
        """Return the names of all topics with records."""
        return {record.topic for record in self._records}

    def trim(self, before: float, limit: int) -> int:
        """Remove up to ``limit`` that are older; count them."""
        old = [record.number for record in self._records if record.occurred_at < before][:limit]
        self._records = [record for record in self._records if record.number not in old]
        return len(old)
