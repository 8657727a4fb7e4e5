"""``harn orchestrator replay``, ``cancel`` and ``discard``: deliveries by id, or many by a selection."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import click
from msgspec import UNSET, Struct, convert, to_builtins

from harn.cli.client import AdminClient, Answered, ask
from harn.cli.deliveries import state_of
from harn.cli.options import Command, parameters_from, with_json, with_parameters, with_place
from harn.cli.output import CHANGES, PROBLEMS, ending_dry_run, print_error, warn
from harn.cli.place import ServerTarget, note_unknown, recorded_triggers, with_server
from harn.cli.rows import Column, Rows, draw, print_json
from harn.deliveries.change_operations import (
    Cancelled,
    ChangedItem,
    ChangeMany,
    ChangeOne,
    Discarded,
    Done,
    Replayed,
    ReplayedItem,
    cancel_many,
    cancel_one,
    discard_many,
    discard_one,
    replay_many,
    replay_one,
)
from harn.deliveries.job_operations import JobDetail, JobItem, ShowJob, show_job
from harn.deliveries.selection import PAST
from harn.model.delivery import State
from harn.operations.model import Operation
from harn.store.jobs import CANCEL, DISCARD, REPLAY

if TYPE_CHECKING:
    from harn.clocks import WallTime
    from harn.store.interfaces import IStore

MANY: Mapping[str, Operation[Any, ChangeMany, Any]] = {REPLAY: replay_many, CANCEL: cancel_many, DISCARD: discard_many}
ONE: Mapping[str, Operation[Any, ChangeOne, Any]] = {REPLAY: replay_one, CANCEL: cancel_one, DISCARD: discard_one}
ANSWERS: Mapping[str, type[Done]] = {REPLAY: Replayed, CANCEL: Cancelled, DISCARD: Discarded}
PAGE = 5000
"""Items of a job that one request reads."""
INTERVAL = 0.5
"""Seconds between two looks at a job."""
DRY_RUN = {"dry_run": "Only count what would be done, and list it: exit 0 nothing, 1 something, 2 problems."}
MOST_SHOWN = 20
"""Deliveries that an answer shows for people; ``--json`` has all."""


def with_deliveries(command: Command) -> Command:
    """Return a command the arguments and options by which deliveries are chosen, and how they are changed."""
    for option in reversed(
        (
            with_place,
            click.argument("event_ids", nargs=-1, metavar="[EVENT_ID...]"),
            click.option(
                "--state",
                "states",
                type=click.Choice([state.value for state in State]),
                multiple=True,
                help="In this state; may be given again.",
            ),
            with_parameters(replay_many, without=("state", "event_ids"), helps=DRY_RUN),
            click.option("-y", "--yes", is_flag=True, help="Do not ask."),
            click.option("--progress", is_flag=True, help="Wait for the end, and show the progress."),
            with_server,
            with_json,
        )
    ):
        command = option(command)
    return command


@click.command()
@with_deliveries
def replay(**given: Any) -> None:
    """Run recorded events again on the newest version, each as a new delivery: EVENT_IDs, or all that match."""
    change(REPLAY, **given)


@click.command()
@with_deliveries
def cancel(**given: Any) -> None:
    """Cancel deliveries that are ready, waiting or running: EVENT_IDs, or all that match."""
    change(CANCEL, **given)


@click.command()
@with_deliveries
def discard(**given: Any) -> None:
    """Discard dead letters: EVENT_IDs, or all that match."""
    change(DISCARD, **given)


def change(
    operation: str,
    *,
    target: ServerTarget,
    yes: bool,
    progress: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run an operation, after a confirmation unless deliveries are named, and end the process with its exit status."""
    wanted = parameters_from(replay_many, given, state=state_of(given["states"]))
    is_named = bool(wanted.event_ids)
    if not (is_named or wanted.dry_run or yes) and not is_terminal():
        raise click.UsageError(
            f"to {operation} deliveries that a filter selects, give --yes; preview them with --dry-run"
        )
    with ending_dry_run(wanted.dry_run):
        changes = find_changes(target)
        if not (is_named or wanted.dry_run or yes):
            confirm(operation, changes, wanted)
        answered = changes.change(operation, wanted)
        if goes_on(answered.result) and isinstance(changes, ServerChanges) and (progress or wanted.rate_limit is None):
            answered = changes.follow(operation, answered, with_bar=progress)
        if as_json:
            print_json(answered.document)
        else:
            show(answered.result)
        if not answered.result.matched:
            note_unknown(target, wanted.trigger)
    sys.exit(exit_status(answered.result, is_named=is_named))


def exit_status(done: Done, *, is_named: bool) -> int:
    """Return the exit status for an answer, after a message where one of the deliveries that were named was skipped."""
    if is_named and done.skipped:
        print_error(skipped_text(done))
        return PROBLEMS if done.dry_run else 1
    return CHANGES if done.dry_run and done.matched > done.skipped else 0


def skipped_text(done: Done) -> str:
    """Return how many of the named deliveries were skipped, and why the first was."""
    items = done.items  # type: ignore[attr-defined]
    first = next((f"{item.event_id}: {item.reason}" for item in items if item.reason is not UNSET), "see the job")
    return first if done.matched == 1 else f"{done.skipped} of {done.matched} were skipped; the first: {first}"


def goes_on(done: Done) -> bool:
    """Return whether a job continues after the answer."""
    return done.state == "running"


def is_terminal() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(operation: str, changes: DeliveryChanges, wanted: ChangeMany) -> None:
    """
    Show how many deliveries match, and ask.

    :raises click.Abort: the answer is no.
    """
    fields = {name: getattr(wanted, name) for name in wanted.__struct_fields__}
    tried = changes.change(operation, ChangeMany(**{**fields, "dry_run": True})).result
    doable = tried.matched - tried.skipped
    question = f"{operation} {doable} deliveries ({tried.matched} match, {tried.skipped} are skipped)?"
    click.confirm(question, abort=True, err=True)


def show(done: Done) -> None:
    """Print the answer."""
    past = PAST[done.operation]
    count = getattr(done, past)
    if done.dry_run:
        click.echo(f"{done.matched} match: {done.matched - done.skipped} would be {past}, {done.skipped} skipped")
    else:
        click.echo(f"{count} of {done.matched} {past}, {done.skipped} skipped")
    items = done.items  # type: ignore[attr-defined]  # each of the classes of answers has some
    if items:
        draw(Rows(title="Deliveries:", columns=columns_of(done), rows=items[:MOST_SHOWN]))
    left = max(0, len(items) - MOST_SHOWN) + (done.more or 0)
    if left:
        warn(f"{left} more are not shown; --json has them")
    if goes_on(done):
        warn(f"job {done.job} goes on in the server; see it with: harn orchestrator jobs --show {done.job}")


def columns_of(done: Done) -> tuple[Column, ...]:
    """Return the columns of an answer's items."""
    as_new = (Column("Replayed as", lambda item: item.replayed_as, style="cyan"),)
    why = (Column("Why not", lambda item: None if item.reason is UNSET else item.reason, drop=1, wraps=True),)
    return (
        Column("Event", lambda item: item.event_id),
        *(as_new if done.operation == REPLAY and not done.dry_run else ()),
        *(why if done.skipped else ()),
    )


class DeliveryChanges(Protocol):
    """Changes deliveries."""

    def change(self, operation: str, wanted: ChangeMany) -> Answered[Any]:
        """Run an operation, and return its answer."""


class ServerChanges(Struct, frozen=True):
    """The deliveries of a running server."""

    client: AdminClient

    def change(self, operation: str, wanted: ChangeMany) -> Answered[Any]:
        """See `DeliveryChanges.change`; a single one is refused, and not skipped, when it cannot be done."""
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
            "items": to_builtins([item_of(operation, each) for each in self._items(number)]),
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
                        warn(f"job {number} is paused; resume it with: harn orchestrator jobs --resume {number}")
                    return
                time.sleep(INTERVAL)

    def _items(self, number: int) -> Iterator[JobItem]:
        after: int | None = 0
        while after is not None:
            page: JobDetail = ask(self.client, show_job, ShowJob(job=number, after=after, limit=PAGE)).result
            yield from page.items
            after = page.after


def item_of(operation: str, item: JobItem) -> ReplayedItem | ChangedItem:
    """Return an item of a job as the answer to an operation has it."""
    if operation == REPLAY:
        return ReplayedItem(event_id=item.event_id, replayed_as=item.replayed_as or None, reason=item.reason)
    return ChangedItem(event_id=item.event_id, reason=item.reason)


def find_changes(target: ServerTarget) -> DeliveryChanges:
    """Return the server if one runs, else its state directory."""
    client = target.client_if_any()
    if client is not None:
        return ServerChanges(client)
    return StoreChanges(target.location.state_dir)


class StoreChanges(Struct, frozen=True):
    """
    The deliveries of a state directory on which no server runs.

    :ivar state_dir: absolute.
    """

    state_dir: str

    def change(self, operation: str, wanted: ChangeMany) -> Answered[Any]:
        """
        See `DeliveryChanges.change`. A rate is for a server: here nothing runs yet.

        :raises StateDirectoryUnusable: there is no event log, or a server holds the directory.
        """
        from twisted.internet import reactor

        from harn.cli.serve import run_until
        from harn.clocks import WallClock, use_monotonic_time
        from harn.orchestrator.stores import make_offline_store
        from harn.store.lock import StateDirectoryLock

        lock, wall = StateDirectoryLock(self.state_dir), WallClock()
        # Where there is none, that is the error, and no directory is made for the lock.
        store = make_offline_store(self.state_dir, reactor, os.environ, wall, lock)
        lock.acquire()
        use_monotonic_time(reactor)
        try:
            done = run_until(reactor, self._change(reactor, wall, store, operation, wanted))
        finally:
            lock.release()
        return Answered(done, to_builtins(done))

    async def _change(self, reactor: Any, wall: WallTime, store: IStore, operation: str, wanted: ChangeMany) -> Done:
        from harn.deliveries.bulk import change_offline

        triggers = recorded_triggers(self.state_dir)
        store.lists.nothing_runs = True
        await store.open()
        try:
            return await change_offline(reactor, wall, store, triggers, operation, wanted)
        finally:
            await store.close()
