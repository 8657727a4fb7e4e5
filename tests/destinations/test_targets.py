"""Destinations of plugins as the dispatcher relies on them, and the suite that every destination must pass."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.destinations.catalog import DestinationCatalog
from harn.destinations.interfaces import IDestination, IDestinationPlugin
from harn.destinations.targets import LocalPlugin, Outside
from harn.errors import DestinationFailed, HandlerRejected, HandlerTimedOut
from harn.model.exchange import OutgoingDelivery, Returned
from harn.testing.destinations import DestinationCase, example_delivery, make_destination_tests

TARGET = "box://one"


@implementer(IDestination)
class Box:
    """Answers each delivery with what the test says."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.begun: list[str] = []

    def prepare(self) -> None:
        """Acquire nothing."""

    def begin(self, delivery: OutgoingDelivery, *, alone: bool = False) -> Any:
        """Return the answer, or raise it."""
        self.begun.append(delivery.event_id)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return succeed(Returned()) if self.answer is None else self.answer

    def close(self) -> None:
        """Release nothing."""


@implementer(IPlugin, IDestinationPlugin)
class BoxPlugin:
    """The scheme ``box``."""

    scheme = "box"
    example = TARGET

    def check(self, target: str) -> str:
        """Accept any name."""
        if target == "box://":
            raise ValueError(f"must name a box, got {target!r}; write for example {TARGET}")
        return target

    def destination(self, context: Any) -> Box:
        """Make one."""
        return Box()


class BoxTests(make_destination_tests(lambda: DestinationCase(plugin=BoxPlugin(), target=TARGET, wrong=("box://",)))):
    """The suite holds for a plain destination."""


class LocalTests(make_destination_tests(lambda: DestinationCase(plugin=LocalPlugin(), wrong=("no function",)))):
    """The suite holds for local functions, as far as it needs no interpreter."""


class OutsideTests(SynchronousTestCase):
    """`Outside`: in time, and with known failures."""

    def begin(self, answer: Any, seconds: float = 5.0) -> Deferred[Returned]:
        """Begin an attempt that a destination answers so."""
        self.clock, self.box = Clock(), Box(answer)
        outside = Outside(TARGET, self.box, self.clock)
        return Deferred.fromCoroutine(outside.begin(example_delivery(TARGET), seconds))

    def test_arrives(self) -> None:
        """What the destination returns is the outcome, whether a Deferred, a coroutine, or the value itself."""

        async def answering() -> Returned:
            return Returned(b"3")

        for answer in (succeed(Returned(b"3")), answering(), Returned(b"3")):
            self.assertEqual(self.successResultOf(self.begin(answer)), Returned(b"3"))

    def test_time(self) -> None:
        """An attempt whose time is up is cancelled, and has failed."""
        cancelled: list[bool] = []
        waiting = self.begin(Deferred(lambda _: cancelled.append(True)))
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.failureResultOf(waiting, HandlerTimedOut)
        self.assertEqual(cancelled, [True])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_known_failures(self) -> None:
        """An error of harn's classes that it raises is the outcome."""
        self.failureResultOf(self.begin(HandlerRejected("no")), HandlerRejected)
        self.failureResultOf(self.begin(DestinationFailed("no")), DestinationFailed)

    def test_unknown_failures(self) -> None:
        """Anything else that it raises, or returns, is a failed attempt."""
        for error in (ValueError("x"), SystemExit(1)):
            failure = self.failureResultOf(self.begin(error), DestinationFailed)
            self.assertIn(type(error).__name__, str(failure.value))
            self.flushLoggedErrors(type(error))
        failure = self.failureResultOf(self.begin(b"null"), DestinationFailed)
        self.assertIn("must return", str(failure.value))


class CatalogTests(SynchronousTestCase):
    """`DestinationCatalog`."""

    def test_discover(self) -> None:
        """Local functions are found without configuration."""
        catalog = DestinationCatalog.discover()
        self.assertIsInstance(catalog.plugin("local"), LocalPlugin)

    def test_two_for_one_scheme(self) -> None:
        """Of two plugins for one scheme one is used, and the other is a problem; harn's own always wins."""

        class Other(LocalPlugin):
            """Claims a scheme of harn's."""

        catalog = DestinationCatalog.of([Other(), LocalPlugin()])
        self.assertIs(type(catalog.plugin("local")), LocalPlugin)
        (problem,) = catalog.problems
        self.assertIn("'local' already belongs to harn.destinations.targets", str(problem))

    def test_unusable(self) -> None:
        """A plugin that does not keep its interface's promise is a problem, and costs no other."""

        class Shouting(BoxPlugin):
            """Has a scheme that none can have."""

            scheme = "BOX"

        catalog = DestinationCatalog.of([Shouting(), BoxPlugin()])
        self.assertEqual(list(catalog.plugins), ["box"])
        (problem,) = catalog.problems
        self.assertIn("scheme must be lower-case", str(problem))
