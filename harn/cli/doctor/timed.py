"""Checks of schedules and polls, and of the lists and public keys that senders publish."""

from __future__ import annotations

from collections.abc import Iterator

from harn.cli.doctor.model import Row, format_age, ok, skipped, warning
from harn.cli.doctor.stored import seconds_of
from harn.cli.doctor.subject import Subject
from harn.cli.schedule import stored_schedule
from harn.errors import ManifestInvalid
from harn.listener.published_operations import PublishedInfo, PublishedList
from harn.schedules.cursor_operations import PollInfo
from harn.schedules.operations import FiringInfo, ListSchedule, ScheduleList

SCHEDULES, PUBLISHED = "schedules", "published"
OVERDUE = 60.0
"""Seconds by which a firing may be late."""
OLD = 3 * 3600.0
"""Seconds after which a document that is fetched each hour is old."""


def check_schedules(subject: Subject) -> Iterator[Row]:
    """Check the next firings and the last calls of polls: of the server, or else by its store."""
    found = subject.serving.schedule
    if found is None and subject.pid is None:
        try:
            found = stored_schedule(subject.location, ListSchedule(limit=1000), subject.now)
        except ManifestInvalid:
            yield skipped(SCHEDULES, "the manifest has problems")
            return
    if found is None:
        yield skipped(SCHEDULES, "the server cannot be asked")
    else:
        yield from rows_of_schedules(found, subject.now, is_running=subject.pid is not None)


def rows_of_schedules(found: ScheduleList, now: float, *, is_running: bool) -> Iterator[Row]:
    """
    Return the findings about schedules.

    :param now: seconds, Unix.
    :param is_running: a server fires them.
    """
    first: dict[str, FiringInfo] = {}
    for firing in found.firings:
        first.setdefault(firing.trigger_id, firing)
    if not first:
        yield skipped(SCHEDULES, "no trigger has one")
        return
    following = next(iter(first.values()))
    count = f"{len(first)} trigger" if len(first) == 1 else f"{len(first)} triggers"
    said = f"{count}; next is {following.trigger_id} at {following.at}"
    yield ok(SCHEDULES, said if is_running else f"{said}, if a server ran")
    failing = {each.trigger_id for each in found.polls if each.failures}  # these wait longer after each failure
    for each in first.values():
        late = now - (seconds_of(each.at) or now)
        if is_running and late > OVERDUE and each.trigger_id not in failing:
            hint = "look at the server's log for what keeps it busy, and at its event log"
            yield warning(f"schedule:{each.trigger_id}", f"was due {format_age(late)} ago ({each.at})", hint)
        if each.missed:
            hint = 'where each tick counts, catchup_mode = "latest" or "all" fires those that were missed'
            yield warning(f"schedule:{each.trigger_id}", f"ticks were missed {each.missed} times and passed over", hint)
    for poll in found.polls:
        if poll.failures:
            yield row_of_failing(poll)


def row_of_failing(poll: PollInfo) -> Row:
    """Return the finding about a poll whose last call failed."""
    said = f"failed {poll.failures} times in a row, at {poll.last_failed_at} with {poll.last_error}"
    hint = f"correct its function; if the cursor is wrong: harn orchestrator cursor {poll.trigger_id} --set JSON"
    return warning(f"poll:{poll.trigger_id}", said, hint)


def check_published(subject: Subject) -> Iterator[Row]:
    """Check the addresses and keys that the server fetches from senders."""
    found = subject.serving.published
    if found is None:
        yield skipped(PUBLISHED, "no server runs" if subject.pid is None else "the server cannot be asked")
    else:
        yield from rows_of_published(found)


def rows_of_published(found: PublishedList) -> Iterator[Row]:
    """Return the findings about the documents that senders publish."""
    if not found.documents:
        yield skipped(PUBLISHED, "no trigger uses a list of addresses or public keys that are fetched")
    for each in found.documents:
        yield row_of_document(each)


def row_of_document(document: PublishedInfo) -> Row:
    """Return the finding about one document."""
    label = f"{PUBLISHED}:{document.name}"
    failed = f"; the last fetch failed: {document.error}" if document.error else ""
    hint = "let this machine reach that URL (DNS, firewall, proxy); it is tried again by itself"
    if document.age_seconds is None:
        why = failed or "; the first fetch has not ended"
        return warning(label, f"{document.url} was never fetched, so that requests are answered 503{why}", hint)
    said = f"{document.url}, fetched {format_age(document.age_seconds)} ago"
    if failed or document.age_seconds > OLD:
        return warning(label, f"{said}, and in use{failed}", hint)
    return ok(label, said)
