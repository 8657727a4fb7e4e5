"""``harn orchestrator events``: print the records of a topic, one JSON object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Protocol

import click
import msgspec
from msgspec import Struct

from harn.cli.client import AdminClient, ServerUnreachable, ask
from harn.cli.options import WholeNumber, with_json, with_parameters, with_place
from harn.cli.place import ServerTarget, Sleep, Wait, with_server
from harn.model.display import visible_json
from harn.orchestrator.record_operations import ReadEvents, RecordInfo, read_events

LARGEST_PAGE = 1000
"""Records that the admin API gives immediately."""
INTERVAL = 0.5
"""Seconds between two looks for new records."""


class RecordSource(Protocol):
    """Gives the records of a topic."""

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """Return up to ``limit`` (at most `LARGEST_PAGE`) records with a number above ``after``, by number."""


class ServerRecords(Struct, frozen=True):
    """Records from a running server."""

    client: AdminClient

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """Request one page."""
        answered = ask(self.client, read_events, ReadEvents(topic=topic, after=after, limit=limit))
        records: Sequence[RecordInfo] = answered.result.records
        return records


class FoundRecords:
    """
    Records from the server, or, when none runs, from its store.

    Which of them is found at the first look, and again after a server did not answer: it may have another address then.
    """

    def __init__(self, target: ServerTarget) -> None:
        self._target = target
        self._source: RecordSource | None = None

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """See `RecordSource.read`."""
        if self._source is None:
            self._source = self._find()
        try:
            return self._source.read(topic, after, limit)
        except ServerUnreachable:
            self._source = None
            raise

    def _find(self) -> RecordSource:
        client = self._target.client_if_any()
        if client is not None:
            return ServerRecords(client)
        from harn.cli.sources import StoredRecords

        return StoredRecords(self._target.location.state_dir)


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


@click.command()
@with_place
@with_parameters(read_events, arguments=("topic",), without=("limit",))
@click.option("-n", "--limit", type=WholeNumber(1), metavar="N", help="At most N records.")
@click.option("-f", "--follow", is_flag=True, help="Print new records as they come, until Ctrl-C.")
@with_server
@with_json
def events(target: ServerTarget, topic: str, after: int, limit: int | None, follow: bool, as_json: bool) -> None:
    """
    Print the records of TOPIC as JSON lines.

    For example trigger.inbox.envelopes, trigger.outbox, trigger.attempts, trigger.dlq, orchestrator.manifest.
    """
    if not follow:
        for record in read_pages(FoundRecords(target), topic, after, limit):
            print_record(record)
        return
    try:
        for record in follow_pages(FoundRecords(target), topic, after, limit, Sleep()):
            print_record(record)
    except KeyboardInterrupt:
        return


def follow_pages(source: RecordSource, topic: str, after: int, limit: int | None, pause: Wait) -> Iterator[RecordInfo]:
    """
    Yield records as they come, the first ``limit`` of them; a server that does not answer any more is asked again.

    :raises ServerUnreachable: the first look failed already.
    """
    shown, has_answered = 0, False
    while limit is None or shown < limit:
        try:
            for record in read_pages(source, topic, after, None if limit is None else limit - shown):
                yield record
                after, shown = record.number, shown + 1
            has_answered = True
        except ServerUnreachable:
            if not has_answered:
                raise
        if limit is None or shown < limit:
            pause.wait(INTERVAL)


def print_record(record: RecordInfo) -> None:
    """Print one record, immediately, so that a reader of the pipe sees it now."""
    click.echo(visible_json(json.dumps(msgspec.to_builtins(record), separators=(",", ":"), ensure_ascii=False)))
