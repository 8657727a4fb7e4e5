"""The target of a command that changes deliveries: a running server, or a state directory on which none runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from attrs import frozen
from msgspec import UNSET, convert, to_builtins

from harn.cli.client import AdminClient
from harn.cli.operations import Answered, ask
from harn.cli.output import warn
from harn.cli.place import Reach
from harn.deliveries.change_operations import (
    Cancelled,
    ChangeMany,
    ChangeOne,
    Discarded,
    Done,
    Replayed,
    cancel_many,
    cancel_one,
    discard_many,
    discard_one,
    replay_many,
    replay_one,
)
from harn.deliveries.job_operations import JobDetail, ShowJob, show_job
from harn.deliveries.selection import PAST
from harn.operations.model import Operation
from harn.store.jobs import CANCEL, DISCARD, REPLAY

MANY: Mapping[str, Operation[Any, ChangeMany, Any]] = {REPLAY: replay_many, CANCEL: cancel_many, DISCARD: discard_many}
ONE: Mapping[str, Operation[Any, ChangeOne, Any]] = {REPLAY: replay_one, CANCEL: cancel_one, DISCARD: discard_one}
ANSWERS: Mapping[str, type[Done]] = {REPLAY: Replayed, CANCEL: Cancelled, DISCARD: Discarded}
PAGE = 5000
"""Items of a job that one request reads."""
INTERVAL = 0.5
"""Seconds between two looks at a job."""


class ChangeTarget(Protocol):
    """Changes deliveries."""

    def change(self, operation: str, wanted: ChangeMany) -> Answered[Any]:
        """Run an operation, and return its answer."""


@frozen
class ServerTarget:
    """The deliveries of a running server."""

    client: AdminClient

    def change(self, operation: str, wanted: ChangeMany) -> Answered[Any]:
        """See `ChangeTarget.change`; a single one is refused, and not skipped, when it cannot be done."""
        if len(wanted.event_ids) == 1 and wanted.rate_limit is None:
            one = ChangeOne(event_id=wanted.event_ids[0], dry_run=wanted.dry_run)
            return ask(self.client, ONE[operation], one)
        return ask(self.client, MANY[operation], wanted)

    def follow(self, operation: str, answered: Answered[Any], *, with_bar: bool) -> Answered[Any]:
        """Wait until a job has ended or is paused, show its progress if wanted, and return the whole answer."""
        number = answered.result.job
        for job in self._watched(number, with_bar=with_bar):
            last = job
        document = {
            "operation": operation,
            "dry_run": False,
            "matched": last.matched,
            PAST[operation]: last.done,
            "skipped": last.skipped,
            "items": [self._item(operation, each) for each in self._items(number)],
            "job": number,
            "state": last.state,
        }
        return Answered(convert(document, ANSWERS[operation]), document)

    def _watched(self, number: int, *, with_bar: bool) -> Iterator[JobDetail]:
        from harn.cli.jobs import Progress

        with Progress(is_shown=with_bar) as progress:
            while True:
                job: JobDetail = ask(self.client, show_job, ShowJob(job=number, limit=1)).result
                progress.show(job)
                yield job
                if job.state != "running":
                    if job.state == "paused":
                        warn(f"job {number} is paused; it goes on with: harn orchestrator jobs --resume {number}")
                    return
                time.sleep(INTERVAL)

    def _items(self, number: int) -> Iterator[Any]:
        after: int | None = 0
        while after is not None:
            page: JobDetail = ask(self.client, show_job, ShowJob(job=number, after=after, limit=PAGE)).result
            yield from page.items
            after = page.after

    @staticmethod
    def _item(operation: str, item: Any) -> dict[str, Any]:
        document: dict[str, Any] = to_builtins(item)
        if operation == REPLAY and item.replayed_as is UNSET:
            document["replayed_as"] = None
        return document


def find_target(reach: Reach) -> ChangeTarget:
    """Return the server if one runs, else its state directory."""
    client = reach.client_if_any()
    if client is not None:
        return ServerTarget(client)
    from harn.cli.offline_changes import StoreTarget

    return StoreTarget(reach.place.state_dir)
