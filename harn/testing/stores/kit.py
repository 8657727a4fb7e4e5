"""The parts of tests of stores: a clock that drives one without a running reactor, and makers of values."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from msgspec import structs
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.model.delivery import (
    DONE,
    RETRY_EXHAUSTED,
    Acceptance,
    Attempt,
    Claim,
    DeadLetter,
    NewDelivery,
    Settlement,
    State,
)
from harn.model.event import UNSIGNED, Envelope, encode_envelope
from harn.store.deliveries import Backlog
from harn.store.generations import BindingRecord, GenerationRecord
from harn.store.inbox import Kept
from harn.store.interfaces import IStore
from harn.store.retention import RetentionPolicy

T = TypeVar("T")

NOW = 1_800_000_000.0
"""When a `StoreClock` begins: seconds, Unix."""

DAY = 86400.0

PATIENCE = 30.0
"""Seconds of real time that a store's own thread has for one answer before a test fails."""


@implementer(IReactorFromThreads)
class StoreClock(Clock):
    """A `Clock` that takes calls from a store's threads, and waits for them when a result is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = NOW
        self._calls: SimpleQueue[partial[Any]] = SimpleQueue()

    def callFromThread(self, callable: Any, *args: Any, **kwargs: Any) -> None:
        """See `IReactorFromThreads`."""
        self._calls.put(partial(callable, *args, **kwargs))

    def turn(self) -> None:
        """Run the calls that are due, as the end of a reactor's turn does."""
        self.advance(0)

    def result_of(self, deferred: Deferred[T]) -> T:
        """
        Run turns until ``deferred`` fires; return its result, or raise its failure.

        :raises AssertionError: nothing is left that could fire it.
        """
        results: list[T | Failure] = []
        deferred.addBoth(results.append)
        while not results:
            self.turn()
            if results:
                break
            try:
                call = self._calls.get(timeout=PATIENCE)
            except Empty:
                raise AssertionError("the store gave no answer") from None
            call()
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result


def new_delivery(event_id: str, *, trigger_id: str = "gh", version: int = 1, **changes: Any) -> NewDelivery:
    """Make a delivery that a test can accept; ``changes`` are fields of `NewDelivery`."""
    envelope = Envelope(
        id=event_id,
        provider="webhook",
        kind="ping",
        received_at="2027-01-15T08:00:00.000Z",
        dedupe_key=event_id,
        trace_id="trace_1",
        headers={},
        signature_status=UNSIGNED,
        payload={},
        lifted={},
        body_format="json",
    )
    delivery = NewDelivery(
        event_id=event_id,
        trigger_id=trigger_id,
        version=version,
        provider="webhook",
        kind="ping",
        envelope=encode_envelope(envelope),
        body=b'{"n": 1}',
        received_at=NOW,
    )
    return structs.replace(delivery, **changes)


def accept_of(*deliveries: NewDelivery, guard: Claim | None = None) -> Acceptance:
    """Make an acceptance."""
    return Acceptance(deliveries=deliveries, guard=guard)


def dedupe(key: str, expires_at: float = NOW + DAY) -> Claim:
    """Make the claim of a dedupe key."""
    return Claim(scope="trigger:gh", key=key, expires_at=expires_at)


def attempt_of(number: int = 1, outcome: str = "success", **changes: Any) -> Attempt:
    """Make an attempt of one second."""
    attempt = Attempt(number=number, version=1, started_at=NOW, completed_at=NOW + 1.0, outcome=outcome)
    return structs.replace(attempt, **changes)


def settlement_of(delivery_id: int, state: State = DONE, **changes: Any) -> Settlement:
    """Make a settlement; ``changes`` are fields of `Settlement`."""
    return structs.replace(Settlement(delivery_id=delivery_id, state=state, version=1, attempts=1), **changes)


def generation_of(
    number: int, *bindings: BindingRecord, bundle_id: str = "sha256:b1", **changes: Any
) -> GenerationRecord:
    """Make a generation that is not adopted yet."""
    generation = GenerationRecord(
        number=number, digest=f"sha256:m{number}", bundle_id=bundle_id, source="cli", actor="key:1", bindings=bindings
    )
    return replace(generation, **changes)


def binding_of(version: int, generation: int, *, trigger_id: str = "gh", bundle_id: str = "sha256:b1") -> BindingRecord:
    """Make a definition with its number."""
    return BindingRecord(
        trigger_id=trigger_id,
        version=version,
        fingerprint=f"f{version}",
        generation=generation,
        bundle_id=bundle_id,
        spec=b"{}",
    )


KEEP = RetentionPolicy(events=7 * DAY, dead=30 * DAY)


class StoreTestCase(SynchronousTestCase):
    """A test with a clock, an open store, and its closing."""

    def make_store(self) -> IStore:
        """Make a store that is not open. Called again in one test, it returns a store over the same data."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Open a store, and close it in the end."""
        self.clock = StoreClock()
        self.store = self.make_store()
        self.result_of(self.store.open())
        self.addCleanup(lambda: self.result_of(self.store.close()))

    def result_of(self, deferred: Deferred[T]) -> T:
        """Return the result, or raise the failure."""
        return self.clock.result_of(deferred)

    def restart(self) -> None:
        """Close the store, and open it as another server would."""
        self.result_of(self.store.close())
        self.store = self.make_store()
        self.result_of(self.store.open())

    def crash(self, *running: int) -> None:
        """Open the store as another server would after this one was killed while it ran these deliveries."""
        for delivery_id in running:
            self.result_of(self.store.deliveries.begins(delivery_id))
        crashed, self.store = self.store, self.make_store()
        if self.store is not crashed:
            self.addCleanup(lambda: self.result_of(crashed.close()))
        self.result_of(self.store.open())

    def accept(self, *deliveries: NewDelivery, guard: Claim | None = None) -> Kept:
        """Accept deliveries as one unit; return their ids."""
        return self.result_of(self.store.inbox.accept(accept_of(*deliveries, guard=guard)))

    def accept_one(self, event_id: str, **changes: Any) -> int:
        """Accept one delivery, which must not be a duplicate; return its id."""
        (delivery_id,) = self.accept(new_delivery(event_id, **changes))
        assert delivery_id is not None
        return delivery_id

    def settle(self, delivery_id: int, state: State = DONE, **changes: Any) -> None:
        """Settle a delivery."""
        self.result_of(self.store.deliveries.settle(settlement_of(delivery_id, state, **changes)))

    def adopt(
        self, generation: GenerationRecord, bundle: bytes | None = b"bundle", manifest: bytes | None = None
    ) -> None:
        """Reserve a generation, and adopt it."""
        self.result_of(self.store.generations.reserve(generation, bundle, manifest))
        self.result_of(self.store.generations.adopted(generation.number, NOW))

    def ready_ids(self, after: int = 0, limit: int = 100, max_bytes: int = 1 << 30) -> list[int]:
        """Return the ids of ready deliveries."""
        ids: list[int] = []
        for each in self.result_of(self.store.deliveries.backlog()):
            which = (each.trigger_id, each.version, range(after + 1), limit, max_bytes)
            ids += [row.delivery_id for row in self.result_of(self.store.deliveries.ready(*which))]
        return sorted(ids)

    def due_ids(self, now: float, limit: int = 100) -> list[int]:
        """Make deliveries that are due ready; return the ids."""
        return [row.delivery_id for row in self.result_of(self.store.deliveries.due(now, limit))]

    def state_of(self, event_id: str) -> list[str]:
        """Return the states of the deliveries of one event."""
        return [row.state for row in self.result_of(self.store.deliveries.find(event_id))]

    def kinds(self, topic: str) -> list[str]:
        """Return the kinds of the records of a topic."""
        return [record.kind for record in self.result_of(self.store.event_log.read(topic, 0, 1000))]

    def trim_all(self, policy: RetentionPolicy, now: float) -> int:
        """Trim until nothing is left to trim; return the count."""
        total = 0
        while removed := self.result_of(self.store.trim(policy, now, 10)):
            total += removed
        return total


def backlog_of(trigger_id: str, version: int, ready: int, waiting: int) -> Backlog:
    """Make a count."""
    return Backlog(trigger_id=trigger_id, version=version, ready=ready, waiting=waiting)


def dead_letter(error: str) -> DeadLetter:
    """Make the end of a delivery whose retries are used up."""
    return DeadLetter(reason=RETRY_EXHAUSTED, error_class="handler_error", error=error)
