"""Where records and generations come from: a running server, or, when none runs, its store (`harn.cli.offline`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from attrs import frozen
from msgspec import to_builtins

from harn.cli.client import AdminClient
from harn.cli.operations import Answered, ask
from harn.cli.place import Reach
from harn.history.model import GenerationContent, GenerationDiff, GenerationInfo
from harn.history.operations import (
    DiffGenerations,
    ListGenerations,
    ShowGeneration,
    diff_generations,
    list_generations,
    show_generation,
)
from harn.orchestrator.operations import ReadEvents, RecordInfo, read_events
from harn.reload.operations import ShowLive, show_live
from harn.reload.results import ProbationInfo

LARGEST_PAGE = 1000
"""Records that the admin API gives at once."""


class RecordSource(Protocol):
    """Gives the records of a topic."""

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """Return up to ``limit`` (at most `LARGEST_PAGE`) records with a number above ``after``, by number."""


@frozen
class ServerRecords:
    """Records from a running server."""

    client: AdminClient

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """Request one page."""
        answered = ask(self.client, read_events, ReadEvents(topic=topic, after=after, limit=limit))
        records: Sequence[RecordInfo] = answered.result.records
        return records


def read_pages(source: RecordSource, topic: str, after: int, limit: int | None) -> Iterator[RecordInfo]:
    """Yield all records above ``after``, or the first ``limit`` of them, a page at a time."""
    left = limit
    while left is None or left > 0:
        page = source.read(topic, after, LARGEST_PAGE if left is None else min(left, LARGEST_PAGE))
        yield from page
        if not page:
            return
        after = page[-1].number
        if left is not None:
            left -= len(page)


@frozen(kw_only=True)
class History:
    """
    The generations that served, the newest first.

    :ivar probation: that of the live one, as the server shows it; None for none.
    """

    generations: tuple[GenerationInfo, ...]
    probation: ProbationInfo | None = None

    def document(self) -> list[dict[str, Any]]:
        """Return what ``--json`` prints: each generation; the one on probation with that as ``probation``."""
        probation = self.probation
        entries: list[dict[str, Any]] = to_builtins(self.generations)
        if probation is None:
            return list(entries)
        shown, number = to_builtins(probation), probation.generation
        return [{**each, "probation": shown} if each["generation"] == number else each for each in entries]


class GenerationSource(Protocol):
    """Gives generations."""

    def history(self, wanted: ListGenerations) -> History:
        """Return the last ones."""

    def show(self, wanted: ShowGeneration) -> Answered[GenerationContent]:
        """Return one with its content."""

    def diff(self, wanted: DiffGenerations) -> Answered[GenerationDiff]:
        """Return what differs between two."""


@frozen
class ServerGenerations:
    """Generations from a running server."""

    client: AdminClient

    def history(self, wanted: ListGenerations) -> History:
        """See `GenerationSource.history`."""
        listed = ask(self.client, list_generations, wanted)
        live = ask(self.client, show_live, ShowLive())
        return History(generations=listed.result.generations, probation=live.result.probation)

    def show(self, wanted: ShowGeneration) -> Answered[GenerationContent]:
        """See `GenerationSource.show`."""
        return ask(self.client, show_generation, wanted)

    def diff(self, wanted: DiffGenerations) -> Answered[GenerationDiff]:
        """See `GenerationSource.diff`."""
        return ask(self.client, diff_generations, wanted)


def find_source(reach: Reach) -> GenerationSource:
    """Return the server's generations if one runs, else those of its store."""
    client = reach.client_if_any()
    if client is not None:
        return ServerGenerations(client)
    from harn.cli.offline import StoredGenerations

    return StoredGenerations(state_dir=reach.place.state_dir, manifest=reach.place.manifest)
