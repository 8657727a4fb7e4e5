"""Services that start in order and end in the reverse order, whatever one of them does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Lifecycle
from harn.manifest.settings import OrchestratorSettings
from harn.server import DRAINING, LONGEST_END, Readiness, Runtime, Server, Services, SettingsChanged, ended_in_time
from harn.vm.childprocess import CLOSE_GRACE, KILL_GRACE


class Noting(Service):
    """A service that records its start and its end, and ends when the test fires ``ending``."""

    def __init__(self, name: str, done: list[str]) -> None:
        self.called = name
        self.done = done
        self.ended: Deferred[None] = Deferred()

    def startService(self) -> None:
        Service.startService(self)
        self.done.append(f"start {self.called}")

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        self.done.append(f"end {self.called}")
        return self.ended


class ServicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.services = Services(self.clock)
        self.done: list[str] = []

    def add(self, *names: str) -> list[Noting]:
        """Add services of these names."""
        added = [Noting(name, self.done) for name in names]
        for each in added:
            self.services.add(each)
        return added

    def test_order(self) -> None:
        """Each begins to end when the one that was added after it has ended."""
        first, second = self.add("first", "second")
        self.services.startService()
        stopped = self.services.stopService()
        self.assertEqual(self.done, ["start first", "start second", "end second"])
        second.ended.callback(None)
        self.assertEqual(self.done[3:], ["end first"])
        self.assertNoResult(stopped)
        first.ended.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure(self) -> None:
        """A service that fails to end, or to start, does not keep the others from ending."""
        first, second = self.add("first", "second")

        class Failing:
            def close(self) -> None:
                raise OSError("cannot be closed")

        def fail_to_start() -> None:
            raise OSError("cannot be started")

        self.services.add_closing(Failing())
        (third,) = self.add("third")
        third.startService = fail_to_start
        self.assertRaises(OSError, self.services.startService)
        stopped = self.services.stopService()
        self.assertEqual(self.done[2:], ["end second"])
        second.ended.callback(None)
        first.ended.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_service_that_does_not_end(self) -> None:
        """It is left behind after a while."""
        self.add("first", "second")
        self.services.startService()
        stopped = self.services.stopService()
        self.clock.advance(LONGEST_END)
        self.assertEqual(self.done[2:], ["end second", "end first"])
        self.clock.advance(LONGEST_END)
        self.successResultOf(stopped)

    def test_not_started(self) -> None:
        """What never ran is not ended."""
        self.add("first")
        self.successResultOf(self.services.stopService())
        self.assertEqual(self.done, [])

    def test_late(self) -> None:
        """A part that does not end is named in one line, whatever its cancelling gives; guards end before."""
        with capturedLogs() as logged:
            waiting: list[Deferred[Any]] = [Deferred(), Deferred()]
            ending = Deferred.fromCoroutine(
                ended_in_time(self.clock, lambda: gatherResults(waiting, consumeErrors=True))
            )
            self.clock.advance(LONGEST_END)
        self.successResultOf(ending)
        said = [formatEvent(event) for event in logged if event["log_namespace"] == "harn"]
        self.assertEqual(said, ["a part of the server did not end within 10 s"])
        self.assertLess(CLOSE_GRACE + KILL_GRACE, LONGEST_END)


class ReadinessTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        """A phase is the only reason; else every check that fails is named."""
        up = {"store": True, "interpreter": True}
        readiness = Readiness()
        readiness.add("event log away", lambda: up["store"])
        readiness.add("interpreter down", lambda: up["interpreter"])
        self.assertEqual(readiness.reasons(), ["starting"])
        readiness.phase = None
        self.assertEqual(readiness.reasons(), [])
        up.update(store=False, interpreter=False)
        self.assertEqual(readiness.reasons(), ["event log away", "interpreter down"])
        readiness.phase = DRAINING
        self.assertEqual(readiness.reasons(), [DRAINING])


class ServerTests(SynchronousTestCase):
    """What features add for each other."""

    def setUp(self) -> None:
        nothing: Any = None
        store: Any = SimpleNamespace(event_log=None)
        self.server = Server(Runtime(Clock()), nothing, {}, Lifecycle(), store, nothing)

    def test_parts(self) -> None:
        """A part is found by its class, or by the kinds given; there is one of each kind."""
        services = self.server.add(Services(Clock()))
        self.assertIs(self.server[Services], services)
        self.server.add(services, Noting)
        found: Any = self.server[Noting]
        self.assertIs(found, services)
        self.assertRaises(ValueError, self.server.add, services)
        self.assertRaises(KeyError, lambda: self.server[Lifecycle])

    def test_settings(self) -> None:
        """Settings are in force for whoever asks later, and subscribers are called with them at once."""
        changed: list[Any] = []
        self.server.lifecycle.subscribe(SettingsChanged, lambda event: changed.append(event.settings))
        settings = OrchestratorSettings(max_body_bytes=5)
        self.server.apply(settings)
        self.assertEqual((self.server.settings, changed), (settings, [settings]))
