"""A confirmation waits for its turn, and nobody's time runs out meanwhile."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from harn.errors import EventLogUnavailable, NothingPending, ShuttingDown
from harn.orchestrator.reload_operations import ReloadOperations
from tests.reload.case import CoordinatorCase
from tests.reload.world import fake


class ConfirmTests(CoordinatorCase):
    def setUp(self) -> None:
        super().setUp()
        nothing: Any = None
        self.operations = ReloadOperations(
            coordinator=self.world.coordinator,
            trials=self.world.trials,
            drained=nothing,
            catalog=nothing,
            manifest="",
            in_thread=nothing,
        )
        self.addCleanup(self.world.close)
        self.world.manifest(fake("a"), fake("b", extra="timeout = '9s'"))
        self.reloaded(confirm_within=20.0)
        self.turn = self.world.coordinator.turns.turn()

    def begin_turn(self) -> None:
        """Keep out everything else, as an upgrade does."""
        self.successResultOf(Deferred.fromCoroutine(self.turn.__aenter__()))

    def end_turn(self) -> None:
        """Let the others go on."""
        self.successResultOf(Deferred.fromCoroutine(self.turn.__aexit__(None, None, None)))

    def test_in_time(self) -> None:
        """What was confirmed in time stays, however long the confirmation waits."""
        self.begin_turn()
        self.world.clock.advance(19.0)
        confirming = self.operations.confirm(None, "me")
        self.world.clock.advance(60.0)
        self.assertNoResult(confirming)
        self.end_turn()
        self.assertEqual(self.successResultOf(confirming), {"generation": 2, "status": "confirmed"})
        self.world.clock.advance(60.0)
        self.assertEqual(self.world.coordinator.generation, 2)

    def test_handed_over(self) -> None:
        """One that still waits when another server takes over is refused, and what is kept is as it was."""
        self.begin_turn()
        confirming = self.operations.confirm(None, "me")
        self.world.coordinator.close()
        self.end_turn()
        self.failureResultOf(confirming, ShuttingDown)
        kept = self.successResultOf(self.world.store.kept("probation"))
        self.assertEqual(kept["generation"], 2)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_not_kept(self) -> None:
        """One that cannot be kept is refused, and time runs again."""
        self.begin_turn()
        confirming = self.operations.confirm(None, "me")
        self.world.clock.advance(30.0)
        self.world.store.fail_writes = True
        self.end_turn()
        self.failureResultOf(confirming, EventLogUnavailable)
        self.world.store.fail_writes = False
        self.world.clock.pump([0.0, 10.0, 10.0])
        self.assertEqual(self.world.coordinator.last.source, "revert")

    def test_nothing_to_confirm(self) -> None:
        """Where nothing waits for it, that is said at once."""
        self.begin_turn()
        self.failureResultOf(self.operations.confirm(7, "me"), NothingPending)
        self.end_turn()
        self.successResultOf(self.operations.confirm(2, "me"))
        self.failureResultOf(self.operations.confirm(None, "me"), NothingPending)
