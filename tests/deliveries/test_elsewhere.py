"""Cancelling what another server on the store has: wherever it is there, and what is answered where it does not end."""

from __future__ import annotations

import gc
from collections.abc import Collection, Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from harn.deliveries.change_operations import Cancelled, cancel_many, cancel_one
from harn.deliveries.elsewhere import CANCELS, LOOK, PATIENCE, Elsewhere
from harn.errors import EventLogUnavailable, WrongState
from tests.deliveries.jobs_world import JobsWorld


class ElsewhereTests(SynchronousTestCase):
    """Two servers: the first has deliveries, the second is asked to cancel them."""

    def setUp(self) -> None:
        """Start both; the first runs one handler at a time."""
        self.first = JobsWorld(max_outstanding=1)
        self.first.begin()
        self.first.store.is_shared = True
        self.second = self.first.next_server()
        self.second.store.is_shared = True
        for _ in range(3):
            self.first.world.take()
        self.ids = [row.event_id for row in self.first.world.rows()]

    def cancel(self, event_id: str) -> Deferred[Cancelled]:
        """Request it of the second server."""
        return self.second.one(cancel_one, event_id)

    def announce(self) -> None:
        """Read the requests on the first server; the second looks at its own."""
        self.first.elsewhere.changed()
        self.first.clock.advance(LOOK)

    def states(self) -> list[str]:
        """Return the state of every delivery, by id."""
        return self.first.world.states()

    def test_wherever_it_is(self) -> None:
        """What runs there is cut off, and what waits there does not begin."""
        for event_id in self.ids[:2]:
            cancelling = self.cancel(event_id)
            self.assertNoResult(cancelling)
            self.announce()
            self.assertEqual(self.successResultOf(cancelling).cancelled, 1)
        self.first.world.call().returns()
        self.assertEqual(self.states(), ["skipped", "skipped", "done"])
        self.assertIsNone(self.successResultOf(self.second.store.checkpoints.get(CANCELS)))

    def test_many(self) -> None:
        """A job cancels what all servers have, with one request."""
        self.second.world.take()
        cancelling = self.second.many(cancel_many, trigger="gh")
        self.first.turns()
        self.announce()
        self.first.turns()
        self.assertEqual(self.successResultOf(cancelling).cancelled, 4)
        self.assertEqual(self.states(), ["skipped"] * 4)

    def test_ended_by_itself(self) -> None:
        """One that ends there before it is cancelled is answered as one of this server is."""
        cancelling = self.cancel(self.ids[0])
        self.first.world.calls[0].returns()
        self.first.clock.advance(LOOK)
        self.assertIn("done", str(self.failureResultOf(cancelling, WrongState).value))

    def test_taken_over_meanwhile(self) -> None:
        """The request is made again when another server has taken the delivery over, since that did not read it."""
        third = self.first.next_server()
        third.store.is_shared = True
        row = self.first.world.rows()[0]
        owners = iter([third.store.incarnation] * 2)
        find = self.second.store.deliveries.owners

        def owner(ids: Collection[int]) -> Deferred[Mapping[int, int]]:
            number = next(owners, None)
            return find(ids) if number is None else succeed(dict.fromkeys(ids, number))

        self.patch(self.second.store.deliveries, "owners", owner)
        cancelling = self.cancel(row.event_id)
        self.first.clock.advance(LOOK)
        self.assertEqual(len(self.successResultOf(self.second.store.checkpoints.get(CANCELS))), 2)
        self.announce()
        self.assertEqual(self.successResultOf(cancelling).cancelled, 1)

    def test_no_answer(self) -> None:
        """The answer names the server that has it, and nothing is asked of it any more."""
        cancelling = self.cancel(self.ids[0])
        self.first.clock.pump([LOOK] * int(PATIENCE / LOOK + 1))
        (item,) = self.successResultOf(cancelling).items
        self.assertIn(f"server number {self.first.store.incarnation} has it", str(item.reason))
        self.announce()
        self.assertEqual(self.states(), ["ready"] * 3)

    def test_requests_of_a_server_that_died(self) -> None:
        """They are met, and removed by another server after a while."""
        row = self.first.world.rows()[2]
        asked = {"at": self.first.world.wall.seconds(), "deliveries": {str(row.delivery_id): row.event_id}}
        self.successResultOf(self.second.store.checkpoints.amend(CANCELS, {"7/1": asked}))
        self.announce()
        self.assertEqual(self.states(), ["ready", "ready", "skipped"])
        self.first.clock.advance(120.0)
        self.announce()
        self.assertIsNone(self.successResultOf(self.second.store.checkpoints.get(CANCELS)))

    def test_several_that_fail(self) -> None:
        """Where the store cannot be reached while several are cancelled, none of the errors is left unhandled."""
        at = self.first.world.wall.seconds()
        asked = {"at": at, "deliveries": {str(row.delivery_id): row.event_id for row in self.first.world.rows()}}
        self.successResultOf(self.second.store.checkpoints.amend(CANCELS, {"7/1": asked, "7/2": asked}))
        answers: list[Deferred[bool]] = []

        def cancel(event_id: str, delivery_id: int) -> Deferred[bool]:
            answers.append(Deferred())
            return answers[-1]

        self.patch(self.first.world.dispatcher, "cancel_delivery", cancel)
        self.first.elsewhere.changed()
        self.assertEqual(len(answers), 6)
        while answers:
            answers.pop().errback(EventLogUnavailable("away"))
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_alone(self) -> None:
        """Where the store is one server's, nothing is read."""
        self.second.store.is_shared = False
        self.second.store.reader.held = True
        elsewhere: Elsewhere = self.second.elsewhere
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(elsewhere.of_others([1]))), {})
