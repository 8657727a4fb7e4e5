"""A confirmation waits for its turn, and the time of its probation does not run out meanwhile."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from harn.errors import EventLogUnavailable, NothingPending, ShuttingDown
from harn.rollout.operations import Confirm, Confirmed, RolloutService, confirm_generation
from tests.operations.asking import asked
from tests.reload.case import CoordinatorCase
from tests.reload.world import fake


class ConfirmTests(CoordinatorCase):
    def setUp(self) -> None:
        super().setUp()
        self.service = RolloutService(rollouts=self.world.rollouts, coordinator=self.world.coordinator)
        self.addCleanup(self.world.close)
        self.world.manifest(fake("a"), fake("b", extra="timeout = '9s'"))
        self.reloaded(confirm_within=20.0)
        self.turn = self.world.coordinator.queue.exclusive()

    def confirm(self, generation: int | None) -> Deferred[Any]:
        """Confirm."""
        return asked(confirm_generation, self.service, Confirm(generation=generation))

    def begin_turn(self) -> None:
        """Keep out everything else, as an upgrade does."""
        self.successResultOf(Deferred.fromCoroutine(self.turn.__aenter__()))

    def end_turn(self) -> None:
        """Allow other reloads again."""
        self.successResultOf(Deferred.fromCoroutine(self.turn.__aexit__(None, None, None)))

    def test_in_time(self) -> None:
        """What was confirmed in time stays, however long the confirmation waits."""
        self.begin_turn()
        self.world.clock.advance(19.0)
        confirming = self.confirm(None)
        self.world.clock.advance(60.0)
        self.assertNoResult(confirming)
        self.end_turn()
        self.assertEqual(self.successResultOf(confirming), Confirmed(generation=2))
        self.world.clock.advance(60.0)
        self.assertEqual(self.world.coordinator.generation, 2)

    def test_handed_over(self) -> None:
        """One that still waits when another server takes over is refused, and what is kept is as it was."""
        self.begin_turn()
        confirming = self.confirm(None)
        self.world.coordinator.close()
        self.end_turn()
        self.failureResultOf(confirming, ShuttingDown)
        kept = self.successResultOf(self.world.store.checkpoints.get("probation"))
        self.assertEqual(kept["generation"], 2)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_not_kept(self) -> None:
        """One that cannot be kept is refused, and time runs again."""
        self.begin_turn()
        confirming = self.confirm(None)
        self.world.clock.advance(30.0)
        self.world.store.fail_writes = True
        self.end_turn()
        self.failureResultOf(confirming, EventLogUnavailable)
        self.world.store.fail_writes = False
        self.world.clock.pump([0.0, 10.0, 10.0])
        self.assertEqual(self.world.last.source, "revert")

    def test_nothing_to_confirm(self) -> None:
        """Where nothing waits for it, that is said at once."""
        self.begin_turn()
        self.failureResultOf(self.confirm(7), NothingPending)
        self.end_turn()
        self.successResultOf(self.confirm(2))
        self.failureResultOf(self.confirm(None), NothingPending)
