"""
The suite that every destination must pass, built-in or third-party::

    class AcmeTests(make_destination_tests(lambda: DestinationCase(plugin=acme, target="acme://queue"))):
        pass
"""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.destinations.catalog import DestinationCatalog
from harn.destinations.interfaces import DestinationContext, IDestination, IDestinationPlugin
from harn.model.event import UNSIGNED, Envelope, encode_envelope
from harn.model.exchange import OutgoingDelivery, Returned


class DestinationCase(Struct, frozen=True, kw_only=True):
    """
    One destination to be tested.

    :ivar target: a handler that its plugin accepts, and that can be delivered to; None where the test cannot reach any.
    :ivar wrong: handlers of its scheme that are not valid.
    :ivar clock: what the destination gets for a reactor.
    """

    plugin: IDestinationPlugin
    target: str | None = None
    wrong: tuple[str, ...] = ()
    clock: Any = None


def example_delivery(target: str, event_id: str = "trigger_evt_1", body: bytes = b'{"n": 1}') -> OutgoingDelivery:
    """Make a delivery as the dispatcher would hand it over."""
    envelope = Envelope(
        id=event_id,
        provider="webhook",
        kind="example",
        received_at="2026-01-02T03:04:05.678Z",
        dedupe_key=event_id,
        trace_id="trace_1",
        headers={},
        signature_status=UNSIGNED,
        payload={},
        lifted={"n": ["n"]},
        body_format="json",
    )
    return OutgoingDelivery(
        target=target,
        binding="example@v1",
        trigger_id="example",
        event_id=event_id,
        envelope=encode_envelope(envelope),
        body=body,
        attempt=1,
        timeout=30.0,
    )


def make_destination_tests(make_case: Callable[[], DestinationCase]) -> type[SynchronousTestCase]:
    """
    Make the test case; each test gets a case of its own.

    :param make_case: called for each test.
    """

    class DestinationTests(SynchronousTestCase):
        """The promises of `IDestination` and `IDestinationPlugin`."""

        def setUp(self) -> None:
            self.case = make_case()

        def target(self) -> str:
            if self.case.target is None:
                self.skipTest("has no target that can be reached")
            return self.case.plugin.check(self.case.target)

        def make(self) -> IDestination:
            context = DestinationContext(
                target=self.target(), reactor=Clock() if self.case.clock is None else self.case.clock
            )
            return self.case.plugin.destination(context)

        def test_interfaces(self) -> None:
            """The plugin and what it makes provide their interfaces, with the right signatures."""
            verifyObject(IDestinationPlugin, self.case.plugin)
            verifyObject(IDestination, self.make())

        def test_catalog(self) -> None:
            """The catalog takes the plugin."""
            catalog = DestinationCatalog.of([self.case.plugin])
            self.assertEqual((catalog.problems, list(catalog.schemes)), ((), [self.case.plugin.scheme]))

        def test_example(self) -> None:
            """The plugin accepts its own example, and its usual spelling is its own usual spelling."""
            spelled = self.case.plugin.check(self.case.plugin.example)
            self.assertEqual(self.case.plugin.check(spelled), spelled)

        def test_wrong_targets(self) -> None:
            """An invalid handler is refused by a `ValueError`, which says what to write."""
            for wrong in self.case.wrong:
                error = self.assertRaises(ValueError, self.case.plugin.check, wrong)
                self.assertIn("; ", str(error))

        def test_delivers(self) -> None:
            """After ``prepare`` a delivery arrives, and another; then it closes."""
            target, destination = self.target(), self.make()
            self.successResultOf(maybeDeferred(destination.prepare))
            for number in range(2):
                delivery = example_delivery(target, f"trigger_evt_{number}")
                returned: Any = self.successResultOf(maybeDeferred(destination.begin, delivery))
                self.assertIsInstance(returned, Returned)
                self.assertIsInstance(returned.result, bytes)
            self.successResultOf(maybeDeferred(destination.close))

        def test_cancel(self) -> None:
            """An attempt whose time is up can be cancelled at any moment; the destination closes all the same."""
            target, destination = self.target(), self.make()
            self.successResultOf(maybeDeferred(destination.prepare))
            running = maybeDeferred(destination.begin, example_delivery(target))
            running.addErrback(lambda _: None)
            running.cancel()
            self.successResultOf(maybeDeferred(destination.close))

        def test_close_without_prepare(self) -> None:
            """A reload that fails early closes what was never prepared."""
            self.successResultOf(maybeDeferred(self.make().close))

    return DestinationTests
