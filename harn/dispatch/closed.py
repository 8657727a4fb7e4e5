"""Versions that begin nothing more, kept over a restart for as long as deliveries name them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from harn.store.generations import ICheckpoints

NAME = "closed_versions"
"""The name of the record: by trigger id, the numbers of its closed versions."""


class ClosedVersions:
    """The record of closed versions."""

    def __init__(self, checkpoints: ICheckpoints) -> None:
        self._checkpoints = checkpoints
        self._closed: dict[str, set[int]] = {}

    async def load(self, unfinished: Collection[tuple[str, int]]) -> Collection[tuple[str, int]]:
        """
        Read the record of an earlier server; return the versions (trigger id, number) in it.

        :param unfinished: versions that deliveries name; others are dropped from the record.
        :raises EventLogUnavailable: it cannot be read.
        """
        found: Mapping[str, Any] = await self._checkpoints.get(NAME) or {}
        closed = {(trigger_id, number) for trigger_id, numbers in found.items() for number in numbers}
        for trigger_id, number in closed.intersection(unfinished):
            self._closed.setdefault(trigger_id, set()).add(number)
        return closed

    async def remove(self, trigger_id: str, version: int) -> None:
        """
        Remove one from the record: deliveries run on it again.

        :raises EventLogUnavailable: it is not on disk.
        """
        self._closed.get(trigger_id, set()).discard(version)
        await self._save()

    async def add(self, trigger_id: str, version: int) -> None:
        """
        Record one more.

        :raises EventLogUnavailable: it is not on disk.
        """
        self._closed.setdefault(trigger_id, set()).add(version)
        await self._save()

    async def _save(self) -> None:
        kept = {each: sorted(numbers) for each, numbers in self._closed.items() if numbers}
        await self._checkpoints.put(NAME, kept or None)
