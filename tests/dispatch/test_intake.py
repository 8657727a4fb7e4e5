"""From normalized events to what is durably accepted."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.dispatch.decisions import Arrival, decide
from harn.dispatch.dispatcher import BETWEEN_EXCHANGES
from harn.dispatch.intake import Taken, Taking
from harn.errors import ClaimTaken, EventLogUnavailable, HandlerRejected
from harn.lifecycle import DeadLettersEnded
from harn.manifest.model import RetrySpec
from harn.model.delivery import Claim
from harn.model.event import decode_envelope
from harn.store.deliveries import IDeliveries
from harn.store.inbox import IInbox, Kept
from harn.testing.clocks import START
from harn.testing.kit import ScriptedInterpreter
from harn.triggers.binding import TERMINATED
from harn.vm.interfaces import IInterpreter
from tests.dispatch.world import World, happened, one_trigger


class WorldTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """What the tests of dispatch put in the place of real parts promises the same."""
        world = World()
        verifyObject(IInbox, world.store.inbox)
        verifyObject(IDeliveries, world.store.deliveries)
        verifyObject(IInterpreter, ScriptedInterpreter())


class IntakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.adopt(one_trigger(dedupe_key="event.dedupe_key", events=["issues.*"], filter="event.kind"))

    def test_a_long_turn(self) -> None:
        """Where handlers run, those that have ended are looked for while one turn takes many requests."""
        world = World(max_outstanding=2)
        world.adopt(one_trigger())
        world.store.writer.held = True  # the turn continues
        for _ in range(2 * BETWEEN_EXCHANGES):
            world.take()
        self.assertEqual(world.makers.exchanges, 0)
        world.store.writer.release()
        self.assertEqual(len(world.calls), 2)
        for _ in range(3 * BETWEEN_EXCHANGES):
            world.take()
        self.assertEqual(world.makers.exchanges, 3)

    def test_noted_before_it_is_called(self) -> None:
        """Calls that leave before the turn ends are noted before: those of an exchange, and those after an answer."""
        world, happens = World(max_outstanding=2), list[Any]()
        world.adopt(one_trigger())
        self.patch(world.makers, "exchange", lambda: happens.append("exchange"))
        self.patch(world.store.deliveries, "note_now", lambda: happens.append(len(world.calls)))
        for _ in range(BETWEEN_EXCHANGES):
            world.take()
        self.assertEqual(happens, [2, "exchange"])
        world.calls[0].returns()
        self.assertEqual(happens[2:], [2])

    def test_one_of_a_commit_fails(self) -> None:
        """The others of its commit are answered all the same, whether the events were kept or not."""

        class Broken(Taking):
            def taken(self, taken: Taken) -> None:
                raise ValueError("broken")

            def not_taken(self, error: Exception) -> None:
                raise ValueError("broken")

        world = World()
        world.adopt(one_trigger())
        binding = world.version()
        arrival = Arrival(headers={}, body=b"{}", received_at=START)
        for fails in (False, True):
            world.store.fail_writes, world.store.writer.held = fails, True
            before = binding.in_flight
            world.intake.begin(Broken(binding, decide(binding, arrival, [happened()])))
            taking = world.take()
            world.store.writer.release()
            if fails:
                self.failureResultOf(taking, EventLogUnavailable)
                self.assertEqual(binding.in_flight, before)
            else:
                self.assertEqual(len(self.successResultOf(taking).event_ids), 1)
                self.assertEqual(len(world.calls), 2)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_one_that_cannot_be_queued(self) -> None:
        """The others of its commit begin, and every request is answered: all are on disk."""
        world = World()
        world.adopt(one_trigger())
        world.store.writer.held = True
        takings = [world.take() for _ in range(3)]
        submit, seen = world.dispatcher.submit, list[int]()

        def fails_once(delivery_id: int, *arguments: Any) -> None:
            seen.append(delivery_id)
            if len(seen) == 1:
                raise ValueError("broken")
            submit(delivery_id, *arguments)

        self.patch(world.dispatcher, "submit", fails_once)
        world.store.writer.release()
        self.assertEqual([len(self.successResultOf(taking).event_ids) for taking in takings], [1, 1, 1])
        self.assertEqual((len(seen), len(world.calls)), (3, 2))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_answer_of_another_length(self) -> None:
        """Where the store does not answer for each delivery, the request fails, and no lease is left."""
        world = World()
        world.adopt(one_trigger())
        binding, before = world.version(), world.version().in_flight
        decided = decide(binding, Arrival(headers={}, body=b"{}", received_at=START), [happened()])
        self.patch(
            world.store.inbox, "keep", lambda acceptance, taking, keepings: keepings.keepings_ended([(taking, Kept())])
        )
        self.failureResultOf(world.intake.keep(binding, decided), ValueError)
        self.patch(world.store.inbox, "accept", lambda acceptance: succeed(Kept((1, 2, 3))))
        self.failureResultOf(world.intake.keep_shared([(binding, decided), (binding, decided)]), ValueError)
        self.assertEqual(binding.in_flight, before)

    def test_one_event(self) -> None:
        """It is durable when the answer comes, under its version, with its bytes; its lease is held."""
        taken = self.successResultOf(self.world.take(body=b'{"a": 1}'))
        (row,) = self.world.rows()
        self.assertEqual((taken.event_ids, taken.duplicates, taken.ignored), ((row.event_id,), 0, 0))
        self.assertEqual((row.trigger_id, row.version, row.kind, row.body), ("gh", 1, "issues.opened", b'{"a": 1}'))
        envelope = decode_envelope(row.envelope)
        self.assertEqual((envelope.id, envelope.headers, envelope.dedupe_key), (row.event_id, {"x-id": "h-1"}, "d-1"))
        self.assertEqual(self.world.version().in_flight, 1)
        self.assertEqual(self.world.metrics.trigger("gh", "github").accepted, 1)

    def test_duplicate(self) -> None:
        """The second event with a key is not kept, and holds nothing."""
        self.successResultOf(self.world.take())
        taken = self.successResultOf(self.world.take())
        self.assertEqual((taken.event_ids, taken.duplicates, len(self.world.rows())), ((), 1, 1))
        self.assertEqual(self.world.version().in_flight, 1)
        self.assertEqual(self.world.metrics.trigger("gh", "github").deduped, 1)

    def test_sent_again_after_a_dead_letter(self) -> None:
        """It is accepted, once, and runs as a repetition of the dead letter, which is not listed as dead any more."""
        ended: list[DeadLettersEnded] = []
        self.world.lifecycle.subscribe(DeadLettersEnded, ended.append)
        self.successResultOf(self.world.take())
        self.world.call().raises(HandlerRejected("no"))
        (first,) = self.successResultOf(self.world.take()).event_ids
        (again,) = self.world.rows()[1:]
        self.assertEqual((self.world.states(), again.event_id), (["replayed", "ready"], first))
        self.assertEqual(self.world.call().call.replay_of, self.world.rows()[0].event_id)
        self.assertEqual(ended, [DeadLettersEnded("gh", "github", "replayed", 1)])
        self.assertEqual(self.successResultOf(self.world.take()).duplicates, 1)
        self.world.call().returns()
        self.assertEqual(self.successResultOf(self.world.take()).duplicates, 1)
        self.assertEqual(self.world.states(), ["replayed", "done"])

    def test_claims_expire(self) -> None:
        """After ``retention_days`` the key is free again."""
        self.world.adopt(one_trigger(dedupe_key="event.dedupe_key", retry=RetrySpec(retention_days=2)))
        self.successResultOf(self.world.take())
        self.world.clock.advance(2 * 86400.0)
        self.assertEqual(len(self.successResultOf(self.world.take()).event_ids), 1)

    def test_ignored(self) -> None:
        """What does not match or is filtered out is counted apart, not stored, and claims nothing."""
        self.world.adopt(one_trigger(events=["issues.*"], filter="event.provider_payload.yes", dedupe_key="'k'"))
        for kind, body in (("push", b'{"yes": true}'), ("issues.opened", b"{}")):
            event = happened(kind, lifted={"yes": ["yes"]})
            taken = self.successResultOf(self.world.take(None, event, body=body))
            self.assertEqual((taken.event_ids, taken.ignored), ((), 1))
        stats = self.world.metrics.trigger("gh", "github")
        self.assertEqual((stats.ignored, stats.filtered, self.world.rows()), (1, 1, []))
        kept = self.world.take(None, happened(lifted={"yes": ["yes"]}), body=b'{"yes": true}')
        self.assertEqual(self.successResultOf(kept).duplicates, 0)
        self.assertEqual(self.world.version().in_flight, 1)

    def test_several_events(self) -> None:
        """One request's events are one unit: kept, duplicate of each other, and ignored are told apart, in order."""
        events = [
            happened(dedupe_key="a"),
            happened("push", dedupe_key="b"),
            happened(dedupe_key="a"),
            happened(dedupe_key="c"),
        ]
        taken = self.successResultOf(self.world.take(None, *events))
        rows = self.world.rows()
        self.assertEqual(taken.event_ids, tuple(row.event_id for row in rows))
        self.assertEqual((len(rows), taken.duplicates, taken.ignored), (2, 1, 1))
        self.assertEqual(self.world.version().in_flight, 2)
        self.assertEqual(len({decode_envelope(row.envelope).trace_id for row in rows}), 1)

    def test_a_filter_that_fails(self) -> None:
        """The event is kept as a dead letter that says why, briefly; nothing is claimed and nothing runs."""
        self.world.adopt(one_trigger(filter="abs(event.provider_payload.n)", dedupe_key="event.dedupe_key"))
        event = happened(lifted={"n": ["n"]})
        for _ in range(2):
            taken = self.successResultOf(self.world.take(None, event, body=b'{"n": "' + b"x" * 100_000 + b'"}'))
            self.assertEqual((len(taken.event_ids), taken.dead), (1, 1))
        self.assertEqual((self.world.states(), self.world.calls), (["dead", "dead"], []))
        self.assertEqual(self.world.dead_reasons(), {"filter_error": 2})
        self.assertEqual((self.world.version().in_flight, self.world.counted().dead), (0, 2))

    def test_event_log_away(self) -> None:
        """Nothing is kept, the lease is given back, and the key is free for the next try."""
        self.world.store.fail_writes = True
        self.failureResultOf(self.world.take(), EventLogUnavailable)
        self.assertEqual((self.world.version().in_flight, self.world.rows()), (0, []))
        self.world.store.fail_writes = False
        self.assertEqual(len(self.successResultOf(self.world.take()).event_ids), 1)

    def test_guard(self) -> None:
        """A guard that was used refuses the whole request; one that is new is used up, events or none."""
        guard = Claim(scope="admin", key="nonce", expires_at=START + 300.0)
        taken = self.successResultOf(self.world.take(None, happened("push"), guard=guard))
        self.assertEqual((taken.event_ids, taken.ignored), ((), 1))
        self.failureResultOf(self.world.take(None, happened(dedupe_key="x"), guard=guard), ClaimTaken)
        self.assertEqual((self.world.rows(), self.world.version().in_flight), ([], 0))
        self.assertEqual(len(self.successResultOf(self.world.take(None, happened(dedupe_key="x"))).event_ids), 1)

    def test_an_event_that_cannot_be_encoded(self) -> None:
        """It fails the Deferred, so that whoever holds a lease gives it back."""
        self.failureResultOf(self.world.take(None, happened(payload={"a": object()})), TypeError)
        self.assertEqual(self.world.version().in_flight, 0)

    def test_a_version_does_not_end_between_commit_and_its_news(self) -> None:
        """A request that began on a version has its event handled by it, whatever is adopted meanwhile."""
        self.world.store.writer.held = True
        old = self.world.version()
        taking = self.world.take()
        self.world.adopt({})
        self.world.store.writer.release()
        self.successResultOf(taking)
        self.assertEqual(self.world.call().call.binding, "gh@v1")
        self.world.call().returns()
        self.assertEqual((old.state, self.world.states()), (TERMINATED, ["done"]))
