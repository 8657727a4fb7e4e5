"""Replaying recorded events under new rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import CallInterrupted, EventLogUnavailable, HandlerTimedOut, InterpreterDied, PredicateRaised
from harn.history.replay import MOST_LISTED, Disposition, RuleReplayer, compare
from harn.model.delivery import DONE, Acceptance, Attempt, NewDelivery, Settlement
from harn.model.event import VERIFIED, Envelope, encode_envelope
from harn.store.deliveries import IDeliveries, RecentEvent
from harn.testing.clocks import NoThreads
from harn.testing.interpreters import InterpreterCase
from harn.testing.kit import ScriptedInterpreter
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import Definition
from harn.vm.inline import InlineInterpreters
from harn.vm.process import ChildInterpreters
from tests.triggers.examples import definition, spec

RECEIVED = 1_700_000_000.0


def envelope(event_id: str = "e-1", kind: str = "issues.opened", provider: str = "github") -> bytes:
    return encode_envelope(
        Envelope(
            id=event_id,
            provider=provider,
            kind=kind,
            received_at="2026-01-02T03:04:05.678Z",
            dedupe_key="d-1",
            trace_id="trace_1",
            headers={},
            signature_status=VERIFIED,
            payload={},
            lifted={"n": ["n"]},
            body_format="json",
        )
    )


def recorded(event_id: str = "e-1", trigger_id: str = "gh", before: str = "handled", **more: Any) -> RecentEvent:
    """Make a recorded event; ``more`` are fields of it."""
    kind = more.pop("kind", "issues.opened")
    given = {"version": 2, "received_at": RECEIVED, "envelope": envelope(event_id, kind), "body": b'{"n": 1}'}
    return RecentEvent(event_id=event_id, trigger_id=trigger_id, kind=kind, disposition=before, **{**given, **more})


class Recordings:
    """A store's answer for recorded events, and the arguments of the query."""

    def __init__(self, *events: RecentEvent) -> None:
        self.events = events
        self.asked: list[tuple[tuple[str, ...], int]] = []
        self.away = False

    def recent(self, trigger_ids: Collection[str], limit: int, depth: int) -> Deferred[Sequence[RecentEvent]]:
        """See `IDeliveries`."""
        self.asked.append((tuple(trigger_ids), limit))
        if self.away:
            return fail(EventLogUnavailable("the disk is gone"))
        return succeed([event for event in self.events if event.trigger_id in trigger_ids])


def as_json(value: Any) -> Any:
    """Return a value as JSON."""
    return msgspec.json.decode(msgspec.json.encode(value))


class Replaying(SynchronousTestCase):
    def setUp(self) -> None:
        self.interpreter = ScriptedInterpreter()

    def begin(self, *events: RecentEvent, limit: int = 100, **rules: Any) -> Deferred[list[dict[str, Any]]]:
        """Replay for trigger ``gh`` with these rules."""
        return self.replay(Recordings(*events), {"gh": definition(spec("gh", **rules))}, limit)

    def replay(
        self, store: Recordings, definitions: dict[str, Definition], limit: int = 100, threads: Any = None
    ) -> Deferred[list[dict[str, Any]]]:
        replayer = RuleReplayer(cast("IDeliveries", store), threads or NoThreads())
        replaying = replayer.replay(self.interpreter, definitions, list(definitions), limit)
        return Deferred.fromCoroutine(replaying).addCallback(as_json)

    def now(self, *events: RecentEvent, **rules: Any) -> list[tuple[str, str | None]]:
        """Return how each event that is treated differently would be treated, and its error."""
        (found,) = self.successResultOf(self.begin(*events, **rules))
        return [(each["now"], each.get("error")) for each in found["different"]]


class RulesTests(Replaying):
    """What match and filter make of an event."""

    def test_same(self) -> None:
        """An event that is kept by rules without a predicate is handled, as before."""
        (found,) = self.successResultOf(self.begin(recorded(), events=("issues.*",), filter="event.kind"))
        self.assertEqual(
            found, {"trigger_id": "gh", "events": 1, "same": 1, "undecided": 0, "different": [], "more": 0}
        )
        self.assertEqual(self.interpreter.calls, [])

    def test_refused(self) -> None:
        """No match, filtered out, and a filter or dedupe key that fails are told apart."""
        self.assertEqual(self.now(recorded(), events=("push",)), [("no_match", None)])
        self.assertEqual(self.now(recorded(), filter="event.provider_payload.raw.n == `2`"), [("filtered", None)])
        ((now, error),) = self.now(recorded(), filter="sum(event.kind)")
        self.assertEqual(now, "filter_error")
        self.assertIn("sum()", error or "")
        ((now, _),) = self.now(recorded(), dedupe_key="avg(event.kind)")
        self.assertEqual(now, "filter_error")

    def test_body(self) -> None:
        """Filters see the body as it was recorded."""
        events = recorded("e-1"), recorded("e-2", body=b'{"n": 2}'), recorded("e-3", body=b"no JSON")
        (found,) = self.successResultOf(self.begin(*events, filter="event.provider_payload.raw.n == `2`"))
        self.assertEqual([each["event_id"] for each in found["different"]], ["e-1", "e-3"])

    def test_entry(self) -> None:
        """A difference names the event, when it came, and both treatments."""
        (found,) = self.successResultOf(self.begin(recorded(before="skipped")))
        self.assertEqual(
            found["different"],
            [
                {
                    "event_id": "e-1",
                    "kind": "issues.opened",
                    "received_at": "2023-11-14T22:13:20.000Z",
                    "before": "skipped",
                    "now": "handled",
                }
            ],
        )

    def test_mended(self) -> None:
        """A filter that failed and now keeps the event is a difference."""
        self.assertEqual(self.now(recorded(before="filter_error")), [("handled", None)])

    def test_unreadable(self) -> None:
        """A record that cannot be read says so, and costs no other event."""
        self.assertEqual(
            [now for now, _ in self.now(recorded(envelope=b"\xc1"), recorded("e-2"), events=("push",))],
            ["unknown", "no_match"],
        )

    def test_undecided(self) -> None:
        """What was accepted and never decided is different only when the new rules turn it away."""
        events = recorded("e-1", before="unknown"), recorded("e-2", before="unknown", kind="push")
        (found,) = self.successResultOf(self.begin(*events, events=("issues.*",)))
        self.assertEqual((found["events"], found["same"], found["undecided"]), (2, 0, 1))
        self.assertEqual([(each["event_id"], each["now"]) for each in found["different"]], [("e-2", "no_match")])


class TriggersTests(Replaying):
    """Several triggers."""

    def test_by_trigger(self) -> None:
        """Each trigger's events are evaluated by its own rules; a trigger without any is left out."""
        store = Recordings(recorded("e-3", "b"), recorded("e-2", "a"), recorded("e-1", "b", kind="push"))
        rules = {"b": spec("b", events=("push",)), "none": spec("none"), "a": spec("a")}
        definitions = {trigger_id: definition(each) for trigger_id, each in rules.items()}
        found = self.successResultOf(self.replay(store, definitions))
        self.assertEqual(
            [(each["trigger_id"], each["events"], each["same"]) for each in found], [("b", 2, 1), ("a", 1, 1)]
        )

    def test_memory(self) -> None:
        """No more events than a thousand are asked for at once, unless one trigger alone is to have more."""
        definitions = {f"t{number}": definition(spec(f"t{number}")) for number in range(25)}
        for limit, sizes in ((100, [10, 10, 5]), (1, [25]), (5000, [1] * 25)):
            store = Recordings()
            self.successResultOf(self.replay(store, definitions, limit))
            self.assertEqual([len(each) for each, _ in store.asked], sizes)
            self.assertEqual(sum((each for each, _ in store.asked), ()), tuple(definitions))

    def test_nothing_to_do(self) -> None:
        """Without triggers the store is not asked."""
        store = Recordings()
        self.assertEqual(self.successResultOf(self.replay(store, {})), [])
        self.assertEqual(store.asked, [])

    def test_store_away(self) -> None:
        """A store that cannot be read is the caller's to know."""
        store = Recordings()
        store.away = True
        self.failureResultOf(self.replay(store, {"gh": definition(spec())}), EventLogUnavailable)

    def test_cancelled_in_a_thread(self) -> None:
        """Rules run some events at a time, and no more of them once the replay is cancelled."""
        jobs: list[tuple[Any, Deferred[Any]]] = []

        class Waiting(NoThreads):
            def call(self, function: Any, *arguments: Any) -> Deferred[Any]:
                jobs.append(((function, arguments), Deferred()))
                return jobs[-1][1]

        store = Recordings(*(recorded(f"e-{number}") for number in range(100)))
        replaying = self.replay(store, {"gh": definition(spec())}, threads=Waiting())
        (function, arguments), done = jobs[0]
        done.callback(function(*arguments))
        self.assertEqual([len(arguments[1]) for (_, arguments), _ in jobs], [32, 32])
        replaying.cancel()
        self.failureResultOf(replaying, CancelledError)
        self.assertEqual(len(jobs), 2)


class PredicateTests(Replaying):
    """Asking ``when``."""

    def test_call(self) -> None:
        """It is asked alone, about the recorded event, within the trigger's time, and may know that it is a replay."""
        found = self.begin(recorded(), when="handlers:should", timeout=3.0)
        (running,) = self.interpreter.calls
        call = running.call
        self.assertEqual((call.handler, str(call.predicate), call.timeout), (None, "handlers:should", 3.0))
        self.assertEqual((call.binding, call.event_id, call.replay_of), ("gh@v2", "e-1", "e-1"))
        self.assertEqual((call.envelope, call.body, running.alone), (envelope(), b'{"n": 1}', False))
        running.returns(None)
        self.assertEqual(self.successResultOf(found)[0]["different"][0]["now"], "skipped")

    def test_only_what_is_kept(self) -> None:
        """An event that match or filter refuse is not passed to the predicate."""
        found = self.begin(recorded("e-1", kind="push"), recorded("e-2"), events=("push",), when="handlers:should")
        (running,) = self.interpreter.calls
        self.assertEqual(running.call.event_id, "e-1")
        running.returns(b"true")
        (result,) = self.successResultOf(found)
        self.assertEqual([(each["event_id"], each["now"]) for each in result["different"]], [("e-2", "no_match")])

    def test_failures(self) -> None:
        """A predicate that raises, takes too long or brings its interpreter down has failed, and says how."""
        errors = (
            PredicateRaised("ValueError: x"),
            HandlerTimedOut("ran longer than 3 s"),
            InterpreterDied("exit 9 \ud800"),
        )
        events = [recorded(f"e-{number}") for number in range(3)]
        found = self.begin(*events, when="handlers:should")
        for running, error in zip(list(self.interpreter.calls), errors, strict=True):
            running.raises(error)
        (result,) = self.successResultOf(found)
        self.assertEqual(
            [(each["now"], each["error"]) for each in result["different"]],
            [
                ("predicate_error", "ValueError: x"),
                ("predicate_error", "ran longer than 3 s"),
                ("predicate_error", "exit 9 ?"),
            ],
        )

    def test_some_at_once(self) -> None:
        """Sixteen are asked at once; each that ends makes room for one; the answers stay with their events."""
        events = [recorded(f"e-{number}") for number in range(40)]
        found = self.begin(*events, when="handlers:should")
        asked: set[str] = set()
        while self.interpreter.calls:
            self.assertLessEqual(len(self.interpreter.calls), 16)
            asked.update(each.call.event_id for each in self.interpreter.calls)
            last = self.interpreter.calls[-1]
            odd = int(last.call.event_id.removeprefix("e-")) % 2
            last.returns(b"true" if odd else None)
            if len(asked) < 40:
                self.assertEqual(len(self.interpreter.calls), 16)
        (result,) = self.successResultOf(found)
        self.assertEqual(len(asked), 40)
        self.assertEqual([each["event_id"] for each in result["different"]], [f"e-{each}" for each in range(0, 40, 2)])

    def test_cancelled(self) -> None:
        """Cancelling ends the calls that run, and begins no other."""

        class Ending(ScriptedInterpreter):
            def begin(self, call: Any, attempt: Any, endings: Any, *, alone: bool = False) -> Any:
                self.begun = getattr(self, "begun", 0) + 1
                return super().begin(call, attempt, endings, alone=alone)

        self.interpreter = Ending()
        found = self.begin(*(recorded(f"e-{number}") for number in range(40)), when="handlers:should")
        found.cancel()
        self.failureResultOf(found, CancelledError)
        self.assertEqual((self.interpreter.calls, self.interpreter.begun), ([], 16))

    def test_unexpected(self) -> None:
        """An error other than a failure of a call ends the replay, and the calls that run."""
        found = self.begin(recorded("e-1"), recorded("e-2"), when="handlers:should")
        first, second = self.interpreter.calls
        first.raises(ZeroDivisionError())
        self.failureResultOf(found, ZeroDivisionError)
        self.assertNotIn(second, self.interpreter.calls)

    def test_interrupted(self) -> None:
        """What another's end interrupted is asked again, one by one; interrupted once more, it stays unknown."""
        found = self.begin(recorded("e-1"), recorded("e-2"), recorded("e-3"), when="handlers:should")
        for running in list(self.interpreter.calls):
            running.raises(CallInterrupted("the process ended", suspect=True))
        seen = []
        for end in (
            lambda running: running.returns(b"true"),
            lambda running: running.raises(InterpreterDied("exit 9")),
            lambda running: running.raises(CallInterrupted("the process ended again", suspect=False)),
        ):
            (running,) = self.interpreter.calls
            seen.append(running.call.event_id)
            end(running)
        (result,) = self.successResultOf(found)
        self.assertEqual((seen, result["same"]), (["e-1", "e-2", "e-3"], 1))
        self.assertEqual(
            [(each["now"], each["error"]) for each in result["different"]],
            [("predicate_error", "exit 9"), ("unknown", "the process ended again")],
        )


class CompareTests(SynchronousTestCase):
    """`compare`."""

    def test_listed(self) -> None:
        """The newest are listed; how many more there are is counted."""
        events = [(recorded(f"e-{number}"), Disposition("filtered")) for number in range(MOST_LISTED + 7)]
        found = as_json(compare("gh", events))
        self.assertEqual((len(found["different"]), found["more"], found["same"]), (MOST_LISTED, 7, 0))
        self.assertEqual(found["different"][0]["event_id"], "e-0")

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["handled", "skipped", "filter_error", "unknown"]),
                st.sampled_from(
                    ["handled", "skipped", "no_match", "filtered", "filter_error", "predicate_error", "unknown"]
                ),
            ),
            max_size=250,
        )
    )
    def test_sums(self, treatments: list[tuple[str, str]]) -> None:
        """Every event is counted once, and the same as before is only what was known before."""
        event = recorded()
        compared = [(replace(event, disposition=before), Disposition(now)) for before, now in treatments]
        found = as_json(compare("gh", compared))
        listed = len(found["different"]) + found["more"]
        self.assertEqual(found["events"], found["same"] + found["undecided"] + listed)
        self.assertEqual(found["same"], sum(before == now != "unknown" for before, now in treatments))


PREDICATES = """
    import os

    def on_event(event): return 1
    def even(event, context):
        assert context.replay_of == event.id
        return event.provider_payload["raw"]["n"] % 2 == 0
    def fatal(event):
        if event.provider_payload["raw"]["n"] == 1:
            os._exit(9)
        return True
"""


class RealCase(InterpreterCase):
    """A real store and a real interpreter; events ``e-0`` skipped, ``e-1`` handled, two not yet run."""

    timeout = 180

    async def replay(self, predicate: str) -> dict[str, Any]:
        """Replay with another predicate."""
        store = PumpedStore(Clock())
        await store.open()
        for number in range(4):
            new = NewDelivery(
                event_id=f"e-{number}",
                trigger_id="gh",
                version=1,
                provider="github",
                kind="issues.opened",
                envelope=envelope(f"e-{number}"),
                body=b'{"n": %d}' % number,
                received_at=RECEIVED,
            )
            (delivery_id,) = await store.inbox.accept(Acceptance(deliveries=(new,)))
            assert delivery_id is not None
            if number < 2:
                await store.deliveries.settle(settled(delivery_id, skipped=number == 0))
        interpreter = await self.make(PREDICATES, "on_event", predicate)
        definitions = {"gh": definition(spec("gh", when=f"handlers:{predicate}"))}
        (compared,) = await RuleReplayer(store.deliveries, NoThreads()).replay(interpreter, definitions, ["gh"], 10)
        found: dict[str, Any] = as_json(compared)
        found["different"] = [(each["event_id"], each["before"], each["now"]) for each in found["different"]]
        return found


class InlineReplayTests(RealCase):
    factory = staticmethod(lambda secrets: InlineInterpreters(reactor, secrets))

    async def test_new_predicate(self) -> None:
        """Of recorded events that were handled and skipped, those are found that a new predicate sees differently."""
        different = [("e-1", "handled", "skipped"), ("e-0", "skipped", "handled")]
        self.assertEqual(
            await self.replay("even"),
            {"trigger_id": "gh", "events": 4, "same": 0, "undecided": 2, "different": different, "more": 0},
        )


class ChildReplayTests(RealCase):
    factory = staticmethod(lambda secrets: ChildInterpreters(reactor, secrets))

    async def test_fatal_predicate(self) -> None:
        """A predicate that ends its process on one event fails on that one alone."""
        different = [("e-1", "handled", "predicate_error"), ("e-0", "skipped", "handled")]
        self.assertEqual(
            await self.replay("fatal"),
            {"trigger_id": "gh", "events": 4, "same": 0, "undecided": 2, "different": different, "more": 0},
        )


def settled(delivery_id: int, *, skipped: bool) -> Settlement:
    """Settle a delivery at its first attempt."""
    outcome = "skipped" if skipped else "success"
    attempt = Attempt(number=1, version=1, started_at=RECEIVED, completed_at=RECEIVED, outcome=outcome)
    return Settlement(
        delivery_id=delivery_id, state=DONE, version=1, attempts=1, passed=not skipped, attempt=attempt, result=None
    )
