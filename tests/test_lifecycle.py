"""The stream of lifecycle events: order, isolation of failures, and what an event without subscribers costs."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Begun, Chosen, Event, Lifecycle


class LifecycleTests(SynchronousTestCase):
    """What emitters and subscribers may rely on."""

    def setUp(self) -> None:
        self.lifecycle = Lifecycle()
        self.seen: list[tuple[str, object]] = []

    def subscribe(self, kind: type[Event], name: str) -> None:
        self.lifecycle.subscribe(kind, lambda event: self.seen.append((name, event)))

    def test_each_subscriber_of_the_type_gets_it_in_order(self) -> None:
        """Subscribers are called in the order in which they subscribed, and only for their type."""
        self.subscribe(Begun, "first")
        self.subscribe(Chosen, "other")
        self.subscribe(Begun, "second")
        begun = Begun("gh", "gh@v1", 1)
        self.lifecycle.emit(begun)
        self.assertEqual(self.seen, [("first", begun), ("second", begun)])

    def test_a_failure_costs_nobody_else_anything(self) -> None:
        """What a subscriber raises is logged; the emitter and the other subscribers do not notice."""

        def fail(event: Begun) -> None:
            raise ValueError(event.binding)

        self.lifecycle.subscribe(Begun, fail)
        self.subscribe(Begun, "second")
        self.lifecycle.emit(Begun("gh", "gh@v1", 1))
        self.assertEqual([name for name, _ in self.seen], ["second"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_what_a_subscriber_emits(self) -> None:
        """Whoever emits may rely on it that every subscriber was called, also within a subscriber."""
        chosen, begun = Chosen("gh", ("gh@v2",)), Begun("gh", "gh@v1", 1)

        def choose(event: Begun) -> None:
            self.lifecycle.emit(chosen)
            self.assertEqual(self.seen, [("chosen", chosen)])

        self.lifecycle.subscribe(Begun, choose)
        self.subscribe(Begun, "begun")
        self.subscribe(Chosen, "chosen")
        self.lifecycle.emit(begun)
        self.assertEqual(self.seen, [("chosen", chosen), ("begun", begun)])

    def test_subscribers_are_fixed_when_the_server_starts(self) -> None:
        """After that a subscription is a programming error, and says so."""
        self.subscribe(Begun, "first")
        self.lifecycle.seal()
        error = self.assertRaises(RuntimeError, self.subscribe, Begun, "late")
        self.assertEqual(str(error), "Begun: subscribers must be added before the server starts")
        self.lifecycle.emit(Begun("gh", "gh@v1", 1))
        self.assertEqual(len(self.seen), 1)

    def test_an_event_without_subscribers_does_nothing(self) -> None:
        """It is dropped, also within the emission of another."""
        self.lifecycle.subscribe(Begun, lambda event: self.lifecycle.emit(Chosen("gh", ())))
        self.lifecycle.emit(Chosen("gh", ()))
        self.lifecycle.emit(Begun("gh", "gh@v1", 1))
        self.assertEqual(self.seen, [])

    def test_events_are_values(self) -> None:
        """They cannot be changed by a subscriber, and equal ones are equal."""
        begun = Begun("gh", "gh@v1", 1)
        self.assertRaises(AttributeError, setattr, begun, "binding", "gh@v2")
        self.assertEqual(begun, msgspec.structs.replace(begun))
