"""What a new program reads again when it takes over."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from harn.api_keys.feature import install as install_keys
from harn.circuits.feature import install as install_circuits
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.feature import install as install_dispatch
from harn.dispatch.pauses import Pauses
from harn.orchestrator.steps import PATIENCE, UpgradableServer
from harn.store.holds import ALL
from harn.testing.kit import KitServer
from harn.triggers.registry import Registry


class GatesTests(SynchronousTestCase):
    """`UpgradableServer.read_gates`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.new = KitServer(self.clock)
        install_dispatch(self.new)
        install_circuits(self.new)
        install_keys(self.new)
        old = Pauses(
            self.new.wall, self.new.store.checkpoints, self.new[Registry], self.new[Dispatcher], self.new.lifecycle
        )
        self.successResultOf(Deferred.fromCoroutine(old.pause(None, None, "me")))
        self.assertEqual(self.new[Pauses].names(), frozenset())

    def test_paused_meanwhile(self) -> None:
        """A pause of the old program, made while the new one started, is in force in that."""
        self.successResultOf(Deferred.fromCoroutine(UpgradableServer(self.new).read_gates()))
        self.assertEqual(self.new[Pauses].names(), {ALL})

    def test_cannot_be_read(self) -> None:
        """The new program takes over all the same, soon, and says so."""
        for is_slow in (False, True):
            self.new.store.fail_reads = not is_slow
            self.new.store.reader.held = is_slow
            with capturedLogs() as logged:
                reading = Deferred.fromCoroutine(UpgradableServer(self.new).read_gates())
                self.clock.advance(PATIENCE)
                self.successResultOf(reading)
            said = [formatEvent(each) for each in logged]
            self.assertEqual([text for text in said if text and "cannot be read again" in text], said)
            self.assertEqual(len(said), 1)
