"""
The history of several servers under faults, of clients, handlers and the store, and the rules that it must keep.

The rules know nothing of harn's code: they read plain values, so that each is tested with a history that breaks it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from attrs import frozen

ACCEPTED, DUPLICATE = "accepted", "duplicate_dropped"
NO_ANSWER, AWAY = "no answer", "away"
"""Instead of a status: a request that was cut off, and one that was answered with 429 or 503."""
EXPECTED = frozenset((ACCEPTED, DUPLICATE, NO_ANSWER, AWAY))
UNSETTLED = 2.0
"""Seconds after its end for which an attempt may still be under way: until its outcome is committed."""
GRACE = 1.0
"""Seconds for which handlers of a killed server may write lines, and by which notes of faults may be late."""
SPREAD = 5.0
"""Seconds in which each server has adopted what was decided, or is fenced."""


@frozen(kw_only=True)
class Request:
    """
    One request of a client, and its answer.

    :ivar life: names the process that was asked. ``status``: of the answer's document, or as above.
    :ivar generation: that the answer names; 0 for none. ``sent_at``, ``answered_at``: seconds, Unix.
    """

    trigger: str
    key: str
    life: str
    status: str
    sent_at: float
    answered_at: float
    event_id: str = ""
    generation: int = 0


@frozen(kw_only=True)
class Run:
    """
    One call of a handler.

    :ivar code: the edition of the handler's source. ``ended_at``: None where it was cut off (seconds, Unix).
    """

    event_id: str
    trigger: str
    version: int
    code: str
    life: str
    began_at: float
    ended_at: float | None = None


@frozen(kw_only=True)
class Stored:
    """A delivery in the store when everything has ended."""

    event_id: str
    trigger: str
    key: str
    version: int
    is_done: bool


@frozen(kw_only=True)
class Loss:
    """
    A server was killed or fenced. Times in seconds, Unix.

    :ivar at: when it was killed; of one that was fenced, its last heartbeat.
    :ivar until: of one that was fenced, when that was recorded: a server may have begun to wait for the lock of the
        writers right after its last heartbeat, and the record waits for it too. Else None.
    """

    life: str
    at: float
    until: float | None = None


@frozen(kw_only=True)
class History:
    """
    Everything together.

    :ivar decided: the generations that were adopted. ``versions``: by trigger and version, the generation that made it.
    :ivar editions: by generation, the edition of the source that a report of its reload says it has.
    """

    requests: Sequence[Request]
    runs: Sequence[Run]
    stored: Sequence[Stored]
    losses: Sequence[Loss]
    decided: frozenset[int]
    versions: Mapping[tuple[str, int], int]
    editions: Mapping[int, str]


# Nothing lost


def lost(history: History) -> Iterator[str]:
    """Find accepted events, and keys that were said to be accepted before, which the store does not have."""
    ids = {each.event_id for each in history.stored}
    keys = {(each.trigger, each.key) for each in history.stored}
    for request in history.requests:
        if request.status == ACCEPTED and request.event_id not in ids:
            yield str(request)
        if request.status == DUPLICATE and (request.trigger, request.key) not in keys:
            yield str(request)


def unfinished(history: History) -> Iterator[str]:
    """Find deliveries that are not done, and those that no handler has ended."""
    ended = {each.event_id for each in history.runs if each.ended_at is not None}
    for each in history.stored:
        if not each.is_done or each.event_id not in ended:
            yield str(each)


# Nothing twice


def accepted_twice(history: History) -> Iterator[str]:
    """Find keys with two events, among the answers or in the store, and answers that name the event of another key."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    by_event: dict[str, set[tuple[str, str]]] = defaultdict(set)
    answered = [(each.trigger, each.key, each.event_id) for each in history.requests if each.status == ACCEPTED]
    for trigger, key, event_id in (*answered, *((each.trigger, each.key, each.event_id) for each in history.stored)):
        found[trigger, key].add(event_id)
        by_event[event_id].add((trigger, key))
    for named, events in found.items():
        if len(events) > 1:
            yield f"{named}: {sorted(events)}"
    for event_id, keys in by_event.items():
        if len(keys) > 1:
            yield f"{event_id}: {sorted(keys)}"


def repeated(history: History) -> Iterator[tuple[Run, Run]]:
    """Yield each run of an event that came after another of it, with that other one."""
    for runs in _by_event(history).values():
        yield from pairwise(sorted(runs, key=lambda each: each.began_at))


def handled_twice(history: History) -> Iterator[str]:
    """Find runs that repeat one which was not under way when its server was lost."""
    losses: dict[str, list[Loss]] = defaultdict(list)
    for loss in history.losses:
        losses[loss.life].append(loss)
    for before, after in repeated(history):
        if not any(_was_under_way(before, loss) and loss.at <= after.began_at + GRACE for loss in losses[before.life]):
            yield f"{before} {after} losses: {losses[before.life]}"


def unsettled(history: History, run: Run) -> float | None:
    """Return how long a run had ended when its server was lost (seconds): its outcome was not committed; else None."""
    times = [loss.at for loss in history.losses if loss.life == run.life]
    return None if run.ended_at is None or not times else max(0.0, min(times) - run.ended_at)


def _was_under_way(run: Run, loss: Loss) -> bool:
    until = loss.at if loss.until is None else loss.until
    return run.began_at <= until + GRACE and (run.ended_at is None or run.ended_at >= loss.at - UNSETTLED)


def _by_event(history: History) -> Mapping[str, list[Run]]:
    found: dict[str, list[Run]] = defaultdict(list)
    for run in history.runs:
        found[run.event_id].append(run)
    return found


# One generation


def undecided(history: History) -> Iterator[str]:
    """Find runs of versions, and answers of generations, that were not decided."""
    for run in history.runs:
        if history.versions.get((run.trigger, run.version)) not in history.decided:
            yield str(run)
    for request in history.requests:
        if request.generation and request.generation not in history.decided:
            yield str(request)


def split(history: History) -> Iterator[str]:
    """Find versions that ran with two editions of the source, or with another than that of their generation."""
    codes: dict[tuple[str, int], dict[str, Run]] = defaultdict(dict)
    for run in history.runs:
        codes[run.trigger, run.version].setdefault(run.code, run)
    for version, found in codes.items():
        wanted = history.editions.get(history.versions.get(version, 0))
        if len(found) > 1 or (wanted is not None and wanted not in found):
            yield f"{version}: deployed {wanted}, ran {list(found.values())}"


def went_back(history: History) -> Iterator[str]:
    """Find answers of a server with an older generation than it had answered before the request was sent."""
    lives: dict[str, list[Request]] = defaultdict(list)
    for request in history.requests:
        if request.generation:
            lives[request.life].append(request)
    for requests in lives.values():
        answered = sorted(requests, key=lambda each: each.answered_at)
        place, newest = 0, 0
        for request in sorted(requests, key=lambda each: each.sent_at):
            while place < len(answered) and answered[place].answered_at < request.sent_at:
                newest = max(newest, answered[place].generation)
                place += 1
            if request.generation < newest:
                yield f"{request} after generation {newest}"


def spreads(history: History) -> Mapping[int, float]:
    """
    Return, for each generation, how long after its first answer a request was still answered by an older one.

    That is the time (seconds) between the first and the last adoption, as clients see it: of requests that were sent
    after the first answer, the last; 0 where there is none.
    """
    named = sorted((each for each in history.requests if each.generation), key=lambda each: each.answered_at)
    first: dict[int, float] = {}
    for request in named:
        if not first or request.generation > max(first):
            first[request.generation] = request.answered_at
    found = dict.fromkeys(first, 0.0)
    for request in named:
        for generation, at in first.items():
            if request.generation < generation and request.sent_at > at:
                found[generation] = max(found[generation], request.sent_at - at)
    return found


def late(history: History) -> Iterator[str]:
    """Find generations that a server which lived went without for too long."""
    for generation, seconds in spreads(history).items():
        if seconds > SPREAD:
            yield f"generation {generation} was adopted everywhere {seconds:.3f} s after its first answer"


def unexpected(history: History) -> Iterator[str]:
    """Find answers that no client should get."""
    for request in history.requests:
        if request.status not in EXPECTED:
            yield str(request)


RULES: Mapping[str, Callable[[History], Iterator[str]]] = {
    "accepted events lost": lost,
    "deliveries not done": unfinished,
    "keys accepted twice": accepted_twice,
    "events handled twice without a loss": handled_twice,
    "runs and answers of what was not decided": undecided,
    "versions with two sources": split,
    "servers that went back": went_back,
    "adoptions too late": late,
    "unexpected answers": unexpected,
}


def check(history: History) -> Mapping[str, Sequence[str]]:
    """Return, for each rule, what breaks it."""
    return {name: list(rule(history)) for name, rule in RULES.items()}
