"""
Replaying recorded events under new rules: which of them a reload's triggers would treat differently.

Match, filter and predicate are evaluated on the recorded events; no handler is called and nothing is stored. Requests
are not normalized again. Events that did not match when they arrived were never recorded, so they are not replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred, FirstError, gatherResults

from harn.clocks import rfc3339
from harn.errors import AttemptFailed, CallInterrupted
from harn.manifest.model import TriggerSpec
from harn.model.delivery import FILTER_ERROR
from harn.model.event import TriggerEvent, decode_envelope
from harn.model.references import binding_key
from harn.reload.results import ReplayComparison, ReplayDifference
from harn.store.deliveries import HANDLED, SKIPPED, UNKNOWN, IDeliveries, RecentEvent
from harn.triggers.binding import Definition
from harn.triggers.matching import FilterFailed, Ignored, Rules
from harn.vm.calls import run_call
from harn.vm.interfaces import Call, IInterpreter
from harn.waiting import ReactorThreads

NO_MATCH, FILTERED, PREDICATE_ERROR = "no_match", "filtered", "predicate_error"

MOST_LISTED = 100
"""The largest number of events of one trigger that are listed as treated differently."""
DEPTH = 20_000
"""The number of newest deliveries of all triggers that are searched for recorded events."""
_CALLS = 16
"""The largest number of predicates that run at the same time."""
_IN_MEMORY = 1000
"""The number of events, with their bodies, in memory at the same time; more only if one trigger's limit is higher."""
_IN_ONE_GO = 32
"""The number of events that a thread decides in one call; a cancelled replay ends after the current call."""
_LONGEST_ERROR = 1000


class Disposition(Struct, frozen=True):
    """
    The treatment of an event by the rules of its trigger.

    :ivar name: the disposition, for example ``no_match``.
    :ivar error: the error of the filter or predicate; None if there was none.
    """

    name: str
    error: str | None = None


class RuleReplayer:
    """
    Replays recorded events.

    :param threads: runs match and filter in a thread, since bodies may be big.
    """

    def __init__(self, store: IDeliveries, threads: ReactorThreads) -> None:
        self._store = store
        self._threads = threads

    async def replay(
        self,
        interpreter: IInterpreter,
        definitions: Mapping[str, Definition],
        trigger_ids: Sequence[str],
        limit: int,
    ) -> list[ReplayComparison]:
        """
        Evaluate the rules of ``definitions`` over the newest ``limit`` recorded events of each trigger.

        Cancelling the returned coroutine's Deferred ends the predicates that run.

        :param interpreter: an interpreter that has resolved the predicates and runs no deliveries, since a predicate
            may crash it.
        :return: a comparison for each trigger that has recorded events, in the order of ``trigger_ids``. Each lists at
            most `MOST_LISTED` events, the newest first. Its ``undecided`` counts the events that were accepted and
            never reached their predicate.
        :raises EventLogUnavailable: the store cannot be read.
        """
        found: list[ReplayComparison] = []
        together = max(1, _IN_MEMORY // limit)
        for start in range(0, len(trigger_ids), together):
            some = trigger_ids[start : start + together]
            events: dict[str, list[RecentEvent]] = {trigger_id: [] for trigger_id in some}
            for event in await self._store.recent(some, limit, DEPTH):
                events[event.trigger_id].append(event)
            recorded = [event for trigger_id in some for event in events[trigger_id]]
            specs = {trigger_id: definitions[trigger_id].spec for trigger_id in some if events[trigger_id]}
            treatments = iter(await self._treat(interpreter, specs, recorded))
            for trigger_id in specs:
                compared = [(event, next(treatments)) for event in events[trigger_id]]
                found.append(compare(trigger_id, compared))
        return found

    async def _treat(
        self, interpreter: IInterpreter, specs: Mapping[str, TriggerSpec], events: Sequence[RecentEvent]
    ) -> list[Disposition]:
        """Return the treatment of each event by the rules of its trigger."""
        rules = {trigger_id: Rules.of(spec) for trigger_id, spec in specs.items()}
        treated: dict[int, Disposition] = {}
        calls: dict[int, Call] = {}
        for start in range(0, len(events), _IN_ONE_GO):
            decided = await self._threads.call(decide, rules, events[start : start + _IN_ONE_GO])
            for place, verdict in enumerate(decided, start):
                spec = specs[events[place].trigger_id]
                if verdict is None and spec.when is not None:
                    calls[place] = _call(spec, events[place])
                else:
                    treated[place] = Disposition(HANDLED) if verdict is None else verdict
        if calls:
            treated.update(await _ask(interpreter, calls))
        return [treated[place] for place in range(len(events))]


def decide(rules: Mapping[str, Rules], events: Sequence[RecentEvent]) -> list[Disposition | None]:
    """Return the treatment of each event by match and filter; None for an event that passes both. For a thread."""
    return [_decide(rules[event.trigger_id], event) for event in events]


def _decide(rules: Rules, event: RecentEvent) -> Disposition | None:
    try:
        envelope = decode_envelope(event.envelope)
    except msgspec.MsgspecError as error:
        return Disposition(UNKNOWN, _shortened(f"the recorded event cannot be read: {error}"))
    verdict = rules.decide(TriggerEvent(envelope, event.body))
    if isinstance(verdict, FilterFailed):
        return Disposition(FILTER_ERROR, _shortened(verdict.error))
    if isinstance(verdict, Ignored):
        return Disposition(NO_MATCH if verdict.stage == "match" else FILTERED)
    return None


def compare(trigger_id: str, events: Sequence[tuple[RecentEvent, Disposition]]) -> ReplayComparison:
    """Return the counts of one trigger's events, and a list of those that would be treated differently."""
    different: list[ReplayDifference] = []
    undecided = more = 0
    for event, now in events:
        if event.disposition == now.name != UNKNOWN:
            continue
        if event.disposition == UNKNOWN and now.name in (HANDLED, SKIPPED):
            undecided += 1
        elif len(different) == MOST_LISTED:
            more += 1
        else:
            different.append(
                ReplayDifference(
                    event_id=event.event_id,
                    kind=event.kind,
                    received_at=rfc3339(event.received_at),
                    before=event.disposition,
                    now=now.name,
                    error=msgspec.UNSET if now.error is None else now.error,
                )
            )
    same = len(events) - undecided - more - len(different)
    return ReplayComparison(
        trigger_id=trigger_id,
        events=len(events),
        same=same,
        undecided=undecided,
        different=tuple(different),
        more=more,
    )


def _call(spec: TriggerSpec, event: RecentEvent) -> Call:
    """Return the call of the predicate as in a first attempt; its context says that it is a replay."""
    return Call(
        binding=binding_key(spec.id, event.version),
        trigger_id=spec.id,
        event_id=event.event_id,
        handler=None,
        predicate=None if spec.predicate_reference() is None else str(spec.predicate_reference()),
        envelope=event.envelope,
        body=event.body,
        attempt=1,
        timeout=spec.timeout,
        replay_of=event.event_id,
        secrets=spec.handler_secrets,
    )


async def _ask(interpreter: IInterpreter, calls: Mapping[int, Call]) -> dict[int, Disposition]:
    """
    Call every predicate, at most `_CALLS` at the same time.

    A call that was interrupted because another one ended the interpreter is made again afterwards, one by one.
    """
    treated: dict[int, Disposition] = {}
    interrupted: list[int] = []
    waiting = iter(calls)

    async def ask_on() -> None:
        for place in waiting:
            try:
                treated[place] = await _ask_one(interpreter, calls[place])
            except CallInterrupted:
                interrupted.append(place)

    asking = [Deferred.fromCoroutine(ask_on()) for _ in range(min(_CALLS, len(calls)))]
    try:
        await gatherResults(asking, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    finally:
        for each in asking:
            each.cancel()
    for place in interrupted:
        try:
            treated[place] = await _ask_one(interpreter, calls[place])
        except CallInterrupted as error:
            treated[place] = Disposition(UNKNOWN, _shortened(str(error)))
    return treated


async def _ask_one(interpreter: IInterpreter, call: Call) -> Disposition:
    try:
        returned = await run_call(interpreter, call)
    except AttemptFailed as error:
        return Disposition(PREDICATE_ERROR, _shortened(str(error)))
    return Disposition(SKIPPED if returned.result is None else HANDLED)


def _shortened(text: str) -> str:
    """Return an error's text, cut to `_LONGEST_ERROR`; characters that UTF-8 cannot encode are replaced."""
    return text[:_LONGEST_ERROR].encode("utf-8", "replace").decode("utf-8")
