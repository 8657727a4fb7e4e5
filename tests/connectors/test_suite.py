"""The public suite finds what it says it finds: connectors with one fault each fail the test that is about it."""

from __future__ import annotations

import sys
from typing import Any
from unittest import TestResult

from msgspec import structs
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.connectors.interfaces import ConnectorContext, Events, IReceiver, Normalized, NormalizedEvent
from harn.connectors.providers.webhook import WebhookConnector, WebhookPlugin
from harn.model.exchange import InboundRequest
from harn.testing.connectors import ConnectorCase, make_connector_tests
from tests.connectors.examples import webhook_case

TICK = NormalizedEvent(kind="tick", dedupe_key="1")


class Faulty(WebhookConnector):
    """The generic webhook's connector, with access to its context for mischief."""

    def __init__(self, context: ConnectorContext) -> None:
        super().__init__(context)
        self.context = context


class Credulous(Faulty):
    """Accepts every request."""

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check nothing."""


class Fragile(Faulty):
    """Takes every body for a sound one."""

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """Fail at bodies that are not UTF-8."""
        return Events((structs.replace(TICK, kind=inbound.body.decode("utf-8")[:1] or "x"),))


class Forgetful(Faulty):
    """Counts, so that one request means something else each time."""

    count = 0

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """Return another event each time."""
        self.count += 1
        return Events((structs.replace(TICK, dedupe_key=str(self.count)),))


class Hasty(Faulty):
    """Emits before it is activated."""

    def prepare(self) -> None:
        """Emit at once."""
        super().prepare()
        self.context.emit("t1", TICK)


class Leaky(Faulty):
    """Leaves a timer behind."""

    def activate(self) -> None:
        """Begin a call that never ends."""
        self.context.clock.callLater(10**6, int)


class Restless(Faulty):
    """Emits after it was quiesced."""

    def activate(self) -> None:
        """Emit later, whatever happens."""
        self.context.clock.callLater(60, self.context.emit, "t1", TICK)


class Talkative(Faulty):
    """Shows its secrets."""

    def __repr__(self) -> str:
        return f"<Talkative {self._keys}>"


class Careless(Faulty):
    """Does not notice that it has no secret."""

    def prepare(self) -> None:
        """Accept every request."""
        self._keys = self._binding.secrets["signing_secret"]


class SingleMinded(Faulty):
    """Tries the first value of a secret only."""

    def prepare(self) -> None:
        """Remove the others."""
        super().prepare()
        self._keys = self._keys[:1]


@implementer(IReceiver)
class Unfinished:
    """Claims an interface that it does not have."""

    def __init__(self, context: ConnectorContext) -> None:
        """Do nothing."""


class SuiteTests(SynchronousTestCase):
    """The suite against faulty connectors."""

    def failing(self, connector: Any) -> set[str]:
        """Run the suite; give the names of the tests that fail."""

        class Plugin(WebhookPlugin):
            """Makes the faulty connector."""

            def connector(self, context: ConnectorContext) -> Any:
                return connector(context)

        def case() -> ConnectorCase:
            return replace(webhook_case("github"), plugin=Plugin())

        tests = make_connector_tests(case)
        failed: set[str] = set()
        for name in dir(tests):
            if name.startswith("test_"):
                test = tests(name)
                result = TestResult()
                # The suite's own runner would turn the reactor, which runs this test already; none of these wait.
                self.successResultOf(self.run_one(test, name, result))
                if not result.wasSuccessful():
                    failed.add(name)
        return failed

    def run_one(self, test: Any, name: str, result: TestResult) -> Deferred[None]:
        """Run one test method to its end, without a reactor."""

        async def run() -> None:
            try:
                test.setUp()
                outcome = getattr(test, name)()
                if outcome is not None:
                    await outcome
            except test.failureException:
                result.addFailure(test, sys.exc_info())
            except Exception as error:
                if type(error).__name__ != "SkipTest":
                    result.addError(test, sys.exc_info())

        return Deferred.fromCoroutine(run())

    def test_sound(self) -> None:
        """A sound connector passes everything."""
        self.assertEqual(self.failing(Faulty), set())

    def test_faults(self) -> None:
        """Each fault fails the test that is about it."""
        for connector, name in (
            (Credulous, "test_altered_body"),
            (Credulous, "test_signature_headers"),
            (Credulous, "test_rotation"),
            (Fragile, "test_hostile_bodies"),
            (Forgetful, "test_right_request"),
            (Hasty, "test_life_in_order"),
            (Hasty, "test_closed_without_activate"),
            (Leaky, "test_life_in_order"),
            (Restless, "test_life_in_order"),
            (Talkative, "test_secrets_are_not_shown"),
            (Careless, "test_required_secrets"),
            (SingleMinded, "test_rotation"),
            (Unfinished, "test_interfaces"),
        ):
            self.assertIn(name, self.failing(connector), connector.__name__)
