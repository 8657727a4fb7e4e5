"""Replay and discard, of one delivery and of many, as operators ask for them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.deliveries.change_operations import (
    ChangeMany,
    cancel_many,
    cancel_one,
    discard_many,
    discard_one,
    replay_many,
    replay_one,
)
from harn.errors import DeliveryUnknown, HandlerRaised, WrongState
from harn.lifecycle import Accepted, DeadLettersEnded
from harn.manifest.model import RetrySpec
from harn.model.delivery import LARGE_BODY
from tests.deliveries.jobs_world import JobsWorld
from tests.dispatch.world import happened, one_trigger


class OneTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = JobsWorld()
        self.server.begin(dedupe_key="event.dedupe_key")
        self.addCleanup(self.server.runner.stopService)

    def test_replay(self) -> None:
        """A dead letter runs again on the newest version, as a new delivery; both name each other."""
        (dead,) = self.server.bad_deploy(1)
        ended: list[DeadLettersEnded] = []
        self.server.world.lifecycle.subscribe(DeadLettersEnded, ended.append)
        self.server.world.adopt(one_trigger(), {"gh": "code-2"})
        answer = self.successResultOf(self.server.one(replay_one, dead))
        (item,) = answer.items
        call = self.server.world.call().call
        self.assertEqual((call.replay_of, call.binding, call.event_id), (dead, "gh@v2", item.replayed_as))
        self.assertEqual((answer.matched, answer.replayed, answer.skipped, answer.dry_run), (1, 1, 0, False))
        self.assertEqual(ended, [DeadLettersEnded("gh", "github", "replayed", 1)])
        self.server.world.call().returns()
        self.assertEqual(self.server.states(), {dead: "replayed", item.replayed_as: "done"})
        self.assertEqual(self.server.world.version().in_flight, 0)

    def test_once(self) -> None:
        """A dead letter is replayed once: then it is refused, and the error names its replay; so is what runs."""
        (dead,) = self.server.bad_deploy(1)
        (item,) = self.successResultOf(self.server.one(replay_one, dead)).items
        for event_id, state in ((dead, f"it is replayed as {item.replayed_as}"), (item.replayed_as, "it is running")):
            error = self.failureResultOf(self.server.one(replay_one, event_id), WrongState).value
            self.assertIn(state, str(error))

    def test_done_may_be_replayed_again(self) -> None:
        """What is done stays done, and may be replayed as often as it is asked for."""
        self.server.world.take()
        self.server.world.call().returns()
        (event_id,) = self.server.states()
        for _ in range(2):
            self.successResultOf(self.server.one(replay_one, event_id))
            self.server.world.call().returns()
        self.assertEqual(list(self.server.states().values()), ["done"] * 3)

    def test_trigger_that_is_gone(self) -> None:
        """Nothing is replayed of a trigger that is not in the manifest, and the answer says so."""
        (dead,) = self.server.bad_deploy(1)
        self.server.world.adopt({})
        answer = self.successResultOf(self.server.one(replay_one, dead))
        self.assertEqual((answer.replayed, answer.skipped), (0, 1))
        self.assertIn("gh is not in the manifest", answer.items[0].reason)
        self.assertEqual(self.server.states(), {dead: "dead"})

    def test_discard(self) -> None:
        """A dead letter is discarded, once; nothing else is."""
        (dead,) = self.server.bad_deploy(1)
        answer = self.successResultOf(self.server.one(discard_one, dead))
        self.assertEqual((answer.discarded, self.server.states()), (1, {dead: "discarded"}))
        error = self.failureResultOf(self.server.one(discard_one, dead), WrongState).value
        self.assertIn("it is discarded", str(error))
        self.failureResultOf(self.server.one(replay_one, dead), WrongState)

    def test_unknown(self) -> None:
        """An id that no delivery has is said to be unknown."""
        for operation in (replay_one, discard_one):
            self.failureResultOf(self.server.one(operation, "trigger_evt_1"), DeliveryUnknown)

    def test_dry_run(self) -> None:
        """A dry run changes nothing, and refuses what would be refused."""
        (dead,) = self.server.bad_deploy(1)
        answer = self.successResultOf(self.server.one(replay_one, dead, dry_run=True))
        self.assertEqual((answer.matched, answer.replayed, self.server.states()), (1, 0, {dead: "dead"}))

    def test_large_body(self) -> None:
        """A large body is replayed as it was received."""
        body = b'{"x": "' + b"y" * (2 * LARGE_BODY) + b'"}'
        (dead,) = self.server.bad_deploy(1, lambda n: body)
        self.successResultOf(self.server.one(replay_one, dead))
        self.assertEqual(self.server.world.call().call.body, body)

    def test_event_log_away(self) -> None:
        """Nothing is replayed while the event log is unavailable, and no lease is left."""
        (dead,) = self.server.bad_deploy(1)
        self.server.store.fail_writes = True
        self.failureResultOf(self.server.one(replay_one, dead))
        self.assertEqual((self.server.world.version().in_flight, self.server.world.calls), (0, []))
        self.server.store.fail_writes = False
        self.successResultOf(self.server.one(replay_one, dead))
        self.assertEqual(len(self.server.world.calls), 1)


class CancelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = JobsWorld(max_outstanding=1)
        self.server.begin(retry=RetrySpec(backoff="svix"))
        self.addCleanup(self.server.runner.stopService)

    def held(self) -> tuple[int, int]:
        """Return the leases of the live version, and how many of its deliveries wait for a retry."""
        world = self.server.world
        return world.version().in_flight, world.registry.waiting["gh"]

    def test_in_each_state(self) -> None:
        """What runs is cut off, what is ready or waits ends; nothing of them runs any more, and no lease is left."""
        world = self.server.world
        world.take()
        world.call().raises(HandlerRaised("again"))
        for _ in range(2):
            world.take()
        waiting, running, ready = self.server.states()
        self.assertEqual((world.call().call.event_id, self.held()), (running, (2, 1)))
        for event_id, held in ((ready, (1, 1)), (waiting, (1, 0)), (running, (0, 0))):
            answer = self.successResultOf(self.server.one(cancel_one, event_id))
            self.assertEqual((answer.cancelled, answer.operation), (1, "cancel"))
            self.assertEqual(self.held(), held, event_id)
        self.assertEqual(set(self.server.states().values()), {"skipped"})
        world.clock.pump([60.0] * 100)
        self.assertEqual(world.calls, [])
        error = self.failureResultOf(self.server.one(cancel_one, ready), WrongState).value
        self.assertIn("it is skipped (cancelled)", str(error))

    def test_many(self) -> None:
        """All that an expression selects is cancelled, in memory and in the store alone; the rest runs on."""
        server = JobsWorld(max_outstanding=1, max_deliveries=4)
        server.begin()
        for number in range(40):
            server.world.take(None, happened(lifted={"n": ["n"]}), body=b'{"n": %d}' % number)
        answering = server.many(cancel_many, where="event.provider_payload.n >= `3`", rate=None)
        server.turns(100)
        answer = self.successResultOf(answering)
        self.assertEqual((answer.matched, answer.cancelled, answer.skipped), (37, 37, 0))
        for _ in range(3):
            server.world.call().returns()
        server.turns()
        self.assertEqual(server.world.calls, [])
        self.assertEqual(Counter(server.states().values()), {"skipped": 37, "done": 3})
        self.assertEqual(server.world.version().in_flight, 0)
        server.runner.stopService()

    def test_what_has_ended(self) -> None:
        """What has ended is skipped, with its state, also what was cancelled before."""
        world = self.server.world
        for _ in range(2):
            world.take()
        self.successResultOf(self.server.one(cancel_one, list(self.server.states())[1]))
        world.call().returns()
        world.clock.advance(5.0)
        answering = self.server.many(cancel_many, trigger="gh")
        self.server.turns()
        answer = self.successResultOf(answering)
        self.assertEqual((answer.cancelled, answer.skipped), (0, 2))
        self.assertEqual([item.reason for item in answer.items], ["it is done", "it is skipped (cancelled)"])

    def test_event_log_unavailable(self) -> None:
        """A delivery in memory is cancelled as soon as that can be written, and no longer runs."""
        world = self.server.world
        for _ in range(3):
            world.take()
        ready = list(self.server.states())[2]
        self.server.store.fail_writes = True
        cancelling = self.server.one(cancel_one, ready)
        self.assertNoResult(cancelling)
        self.server.store.fail_writes = False
        world.clock.advance(1.0)
        self.assertEqual(self.successResultOf(cancelling).cancelled, 1)
        for _ in range(2):
            world.call().returns()
        self.assertEqual((self.held(), list(self.server.states().values())), ((0, 0), ["done", "done", "skipped"]))


class ManyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = JobsWorld()
        self.server.begin()
        self.addCleanup(self.server.runner.stopService)

    def test_replay_what_an_expression_selects(self) -> None:
        """What matches is replayed, in the order in which it was accepted, and the answer names the new events."""
        dead = self.server.bad_deploy(5)
        answering = self.server.many(replay_many, where="event.provider_payload.n > `1`", state="dead")
        self.server.turns()
        answer = self.successResultOf(answering)
        self.assertEqual((answer.matched, answer.replayed, answer.skipped, answer.state), (3, 3, 0, "done"))
        self.assertEqual([each.event_id for each in answer.items], dead[2:])
        self.assertEqual(self.server.replays(), dead[2:])
        self.assertEqual(
            [each.call.event_id for each in self.server.world.calls], [i.replayed_as for i in answer.items]
        )

    def test_what_matches_and_cannot_be_replayed(self) -> None:
        """It counts as skipped, each with its reason."""
        dead = self.server.bad_deploy(2)
        self.successResultOf(self.server.one(discard_one, dead[0]))
        self.server.world.take()
        answering = self.server.many(replay_many, trigger="gh")
        self.server.turns()
        answer = self.successResultOf(answering)
        self.assertEqual((answer.matched, answer.replayed, answer.skipped), (3, 1, 2))
        self.assertEqual([item.reason for item in answer.items if item.reason], ["it is discarded", "it is ready"])

    def test_named_ones(self) -> None:
        """Deliveries that are named are changed, each once; one that is unknown lets nothing happen."""
        dead = self.server.bad_deploy(2)
        self.failureResultOf(self.server.many(discard_many, event_ids=(dead[0], "trigger_evt_1")), DeliveryUnknown)
        self.assertEqual(set(self.server.states().values()), {"dead"})
        answering = self.server.many(discard_many, event_ids=(dead[1], dead[0], dead[1]))
        self.server.turns()
        answer = self.successResultOf(answering)
        self.assertEqual((answer.matched, answer.discarded), (2, 2))

    def test_dry_run(self) -> None:
        """A dry run counts and lists what would be done, and what would not."""
        dead = self.server.bad_deploy(3)
        self.server.world.take()
        answer = self.successResultOf(self.server.many(replay_many, trigger="gh", dry_run=True))
        self.assertEqual((answer.matched, answer.replayed, answer.skipped, answer.dry_run), (4, 0, 1, True))
        self.assertEqual({item.event_id for item in answer.items} & set(dead), set(dead))
        self.assertEqual((self.server.replays(), self.server.jobs()), ([], []))

    def test_something_must_be_chosen(self) -> None:
        """Nothing is changed where nothing is chosen, or deliveries are named and selected."""
        for chosen in ({}, {"event_ids": ("e",), "state": "dead"}, {"where": "no(such"}, {"state": "gone"}):
            with self.assertRaises(ValueError):
                ChangeMany(**chosen)

    def test_empty_is_refused(self) -> None:
        """An empty part of a selection is refused: without it much more would be chosen."""
        for key in ("where", "trigger", "kind", "state"):
            chosen: dict[str, Any] = {"event_ids": (), key: ""}
            with self.assertRaisesRegex(ValueError, f"^{key}: must not be empty"):
                ChangeMany(**chosen)

    def test_what_comes_later_is_not_selected(self) -> None:
        """A replay that becomes a dead letter again is not replayed by the same job."""
        self.server.bad_deploy(250)
        answering = self.server.many(replay_many, state="dead")
        for _ in range(30):
            self.server.turns(1)
            self.server.bad_deploy(0)
        answer = self.successResultOf(answering)
        self.assertEqual((answer.matched, answer.replayed), (250, 250))
        self.assertEqual(len(self.server.replays()), 250)

    def test_accepted_is_emitted(self) -> None:
        """Subscribers see each replay as an accepted delivery that names the old one."""
        found: list[Accepted] = []
        self.server.world.lifecycle.subscribe(Accepted, found.append)
        dead = self.server.bad_deploy(2)
        self.server.many(replay_many, state="dead")
        self.server.turns()
        accepted = [each.delivery for event in found for each in event.deliveries]
        self.assertEqual([each.replay_of for each in accepted[2:]], dead)
