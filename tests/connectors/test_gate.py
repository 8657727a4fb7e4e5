"""The valve between a connector and the inbox."""

from __future__ import annotations

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.connectors.gate import Gate
from harn.connectors.interfaces import IEventSink, NormalizedEvent
from harn.errors import EventLogUnavailable, GateShut

TICK = NormalizedEvent(kind="tick", dedupe_key="cron:t1:60")


@implementer(IEventSink)
@frozen
class Taking:
    """Records events; each is answered by ``answer``, or is durable at once."""

    taken: list[tuple[str, NormalizedEvent]] = field(factory=list)
    answer: Deferred[None] | None = None

    def take(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """Record an event."""
        self.taken.append((trigger_id, event))
        return succeed(None) if self.answer is None else self.answer


class GateTests(SynchronousTestCase):
    """Open, shut, and in between."""

    def setUp(self) -> None:
        self.sink = Taking()
        self.taken = self.sink.taken
        self.gate = Gate()

    def test_shut_at_first(self) -> None:
        """Before it is opened an event is refused, and not kept for later."""
        self.failureResultOf(self.gate.emit("t1", TICK), GateShut)
        self.gate.open(self.sink)
        self.assertEqual(self.taken, [])

    def test_open(self) -> None:
        """Open, it hands events over and answers as the sink does."""
        self.gate.open(self.sink)
        self.assertTrue(self.gate.is_open)
        self.successResultOf(self.gate.emit("t1", TICK))
        self.assertEqual(self.taken, [("t1", TICK)])
        self.gate.open(Taking(answer=fail(EventLogUnavailable("away"))))
        self.failureResultOf(self.gate.emit("t1", TICK), EventLogUnavailable)

    def test_shut_again(self) -> None:
        """Shut, it refuses; what went through before is still answered by the sink."""
        answer: Deferred[None] = Deferred()
        self.gate.open(Taking(answer=answer))
        begun = self.gate.emit("t1", TICK)
        self.gate.shut()
        self.failureResultOf(self.gate.emit("t1", TICK), GateShut)
        self.assertNoResult(begun)
        answer.callback(None)
        self.successResultOf(begun)

    def test_exactly_one_is_open(self) -> None:
        """When one generation is adopted after another, each tick is taken by the one gate that is open."""
        old, new = Gate(), Gate()
        old.open(self.sink)
        self.successResultOf(old.emit("t1", TICK))
        self.failureResultOf(new.emit("t1", TICK), GateShut)
        old.shut()
        new.open(self.sink)
        self.failureResultOf(old.emit("t1", TICK), GateShut)
        self.successResultOf(new.emit("t1", TICK))
        self.assertEqual(len(self.taken), 2)
