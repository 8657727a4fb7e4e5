"""
The circuits of a server: one for each trigger with circuit settings, updated when attempts of the trigger begin or end.

A circuit belongs to the trigger, not to a version: a reload does not change it. Open circuits are stored, so that they
are still open after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.circuits.circuit import KEPT_UNUSED, Circuit, CircuitOutcome, CircuitState, restored
from harn.circuits.records import CircuitRecords
from harn.clocks import WallTime, rfc3339
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.gates import Held, IAskedGate
from harn.errors import EventLogUnavailable, HandlerRejected, HandlerRetryAfter
from harn.lifecycle import Begun, CircuitChanged, Failing, Interrupted, Lifecycle, Settled, VersionEnded
from harn.manifest.model import DEAD_LETTER, CircuitSpec
from harn.model.delivery import CIRCUIT_OPEN, DeadLetter, Settlement
from harn.store.holds import OpenRecord
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry

log = Logger(namespace="harn.circuits")

CLOSED = Circuit()
AGAIN = 1.0
"""Seconds after which this server tries again to claim the probe."""


def outcome_of(settlement: Settlement) -> CircuitOutcome:
    """Return how the attempt of a settlement counts for the destination."""
    attempt = settlement.attempt
    if attempt is None:
        return CircuitOutcome.INTERRUPTED
    if attempt.error_class is None or attempt.error_class == HandlerRejected.error_class:
        return CircuitOutcome.ANSWERED
    return CircuitOutcome.POSTPONED if attempt.error_class == HandlerRetryAfter.error_class else CircuitOutcome.FAILED


class CircuitStates(Struct, frozen=True):
    """
    The states of all circuits at one moment.

    :ivar active: the newest version of each trigger, by trigger id.
    :ivar states: the states by trigger id; a circuit that is not in it is closed.
    """

    active: Mapping[str, BindingVersion]
    states: Mapping[str, str]

    def get(self, trigger_id: str) -> str | None:
        """Return the state of a trigger's circuit; None if it has none."""
        binding = self.active.get(trigger_id)
        if binding is None or _circuit_of(binding) is None:
            return None
        return self.states.get(trigger_id, CircuitState.CLOSED.value)


def _circuit_of(binding: BindingVersion) -> CircuitSpec | None:
    spec = binding.spec.circuit
    return spec if spec is not None and spec.failures else None


@implementer(IAskedGate)
class Circuits:
    """
    The circuits of all triggers, as a gate of the dispatcher.

    Only circuits that have failures or are not closed have an entry; any other trigger's circuit is closed, or the
    trigger has none.
    """

    def __init__(
        self,
        wall: WallTime,
        records: CircuitRecords,
        registry: Registry,
        dispatcher: Dispatcher,
        lifecycle: Lifecycle,
    ) -> None:
        self._wall = wall
        self._records = records
        self._registry = registry
        self._dispatcher = dispatcher
        self._lifecycle = lifecycle
        self._circuits: dict[str, Circuit] = {}
        self._expired: dict[str, Circuit] = {}
        self._claiming: set[str] = set()
        self._in_vain: set[str] = set()
        self._is_following = False
        if records.is_shared:
            lifecycle.subscribe(Failing, self._failing)
        lifecycle.subscribe(Begun, self._begun)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(Interrupted, self._interrupted)

    def spec(self, trigger_id: str) -> CircuitSpec | None:
        """Return the circuit settings of a trigger's newest version; None if the trigger has no circuit."""
        binding = self._registry.active.get(trigger_id) or self._registry.newest(trigger_id)
        return None if binding is None else _circuit_of(binding)

    def of(self, trigger_id: str) -> Circuit:
        """Return the circuit of a trigger; a closed one without failures if there is no entry."""
        return self._circuits.get(trigger_id, CLOSED)

    def state(self, trigger_id: str) -> CircuitState | None:
        """Return the state of a trigger's circuit; None if it has none."""
        return None if self.spec(trigger_id) is None else self.of(trigger_id).state

    def states(self) -> CircuitStates:
        """Return the present state of each trigger's circuit, as a value that any thread may read."""
        return CircuitStates(
            self._registry.active, {trigger_id: each.state.value for trigger_id, each in self._circuits.items()}
        )

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of all triggers that have a circuit."""
        return (each for each in self._registry.active if self.spec(each) is not None)

    # The gate

    def held(self, trigger_id: str) -> Held | None:
        """See `IGate.held`."""
        circuit = self._circuits.get(trigger_id)
        if circuit is None or (spec := self.spec(trigger_id)) is None:
            return None
        now, was_in_vain = self._wall.seconds(), trigger_id in self._in_vain
        self._in_vain.discard(trigger_id)
        circuit = self._circuits[trigger_id] = circuit.within(now, spec)
        if circuit.may_begin(now):
            claimed_until = circuit.claimed_until
            if circuit.state is CircuitState.CLOSED or not self._records.is_shared:
                return None
            if claimed_until is not None and now < claimed_until:
                self._dispatcher.ask_gates_at(trigger_id, claimed_until)  # in case nothing begins
                return None
            if was_in_vain:
                return Held(CIRCUIT_OPEN, now + AGAIN, keeps=True)
            return Held(CIRCUIT_OPEN, keeps=True, gate=self)
        refusal = refusal_of(trigger_id, circuit) if spec.open == DEAD_LETTER else None
        return Held(CIRCUIT_OPEN, circuit.retry_at, keeps=True, refusal=refusal)

    def wanted(self, trigger_id: str) -> None:
        """See `IAskedGate.wanted`: claim the probe for this server, unless a claim is in progress."""
        spec = self.spec(trigger_id)
        if spec is not None and trigger_id not in self._claiming:
            self._claiming.add(trigger_id)
            claiming = Deferred.fromCoroutine(self._records.claim(trigger_id, self._wall.seconds(), spec.reset))
            claiming.addErrback(_not_claimed).addCallback(self._claimed, trigger_id)

    def _claimed(self, until: float | None, trigger_id: str) -> None:
        """Called with the end of this server's claim to the probe (seconds, Unix), or None if it has no claim."""
        self._claiming.discard(trigger_id)
        circuit = self._circuits.get(trigger_id)
        if until is None:
            self._in_vain.add(trigger_id)
            self.follow()  # another server has the claim, or has closed the circuit
        elif circuit is not None:
            self._circuits[trigger_id] = circuit.claimed(until)
        self._dispatcher.gate_changed(trigger_id)

    def rate(self, trigger_id: str) -> float | None:
        """See `IGate.rate`."""
        return None

    def names(self) -> frozenset[str]:
        """See `IGate.names`."""
        return frozenset(name for name, each in self._circuits.items() if each.state is not CircuitState.CLOSED)

    # Beginnings and ends

    def _begun(self, event: Begun) -> None:
        circuit = self._circuits.get(event.trigger_id)
        if circuit is not None and self.spec(event.trigger_id) is not None:
            self._replace(event.trigger_id, event.binding, circuit.begun(event.delivery_id))

    def _failing(self, event: Failing) -> None:
        """Count a failure in the store, in the reactor turn in which its settlement is written."""
        trigger_id, delivery_id, circuit = event.trigger_id, event.settlement.delivery_id, self.of(event.trigger_id)
        if (
            outcome_of(event.settlement) is CircuitOutcome.FAILED
            and circuit.state is CircuitState.CLOSED
            and delivery_id not in circuit.failed
            and self.spec(trigger_id) is not None
        ):
            self._records.count(trigger_id, delivery_id).addCallback(self._counted, trigger_id, event.binding)

    def _counted(self, failed: frozenset[int], trigger_id: str, binding: str) -> None:
        """Called with the ids of the trigger's deliveries that have failed in a row, on any server."""
        spec = self.spec(trigger_id)
        if failed and spec is not None:
            self._replace(trigger_id, binding, self.of(trigger_id).counted(failed, self._wall.seconds(), spec))

    def _settled(self, event: Settled) -> None:
        if not self._circuits and not event.others:
            return  # nearly every event ends here
        for each in event.deliveries:
            self._ended(each.trigger_id, each.binding, each.settlement.delivery_id, outcome_of(each.settlement))

    def _interrupted(self, event: Interrupted) -> None:
        self._ended(event.trigger_id, event.binding, event.delivery_id, CircuitOutcome.INTERRUPTED)

    def _ended(self, trigger_id: str, binding: str, delivery_id: int, outcome: CircuitOutcome) -> None:
        circuit = self._circuits.get(trigger_id)
        if circuit is None and outcome is not CircuitOutcome.FAILED:
            return
        before = CLOSED if circuit is None else circuit
        spec = self.spec(trigger_id)
        if spec is not None:
            self._replace(trigger_id, binding, before.ended(delivery_id, outcome, self._wall.seconds(), spec))
        elif before.probe == delivery_id:
            # A reload switched the circuit off during the probe. If it stayed half-open, nothing would close it later.
            self._replace(trigger_id, binding, CLOSED)

    def close(self, trigger_id: str) -> bool:
        """
        Close a trigger's circuit because an operator asked; the deliveries that waited may begin.

        :return: whether the circuit was open or half-open before.
        """
        was = self.of(trigger_id).state
        newest = self._registry.newest(trigger_id)
        self._replace(trigger_id, "" if newest is None else newest.key, CLOSED)
        return was is not CircuitState.CLOSED

    def _replace(self, trigger_id: str, binding: str, circuit: Circuit) -> None:
        before = self.of(trigger_id)
        if circuit == CLOSED:
            self._circuits.pop(trigger_id, None)
        else:
            self._circuits[trigger_id] = circuit
        is_over = not circuit.failed and (before.failed or circuit.state is CircuitState.CLOSED)
        if is_over and not self._is_following:
            self._records.forget(trigger_id)
        if circuit.state is before.state and circuit.retry_at == before.retry_at:
            return
        is_kept = CircuitState.CLOSED in (before.state, circuit.state) or circuit.state is CircuitState.OPEN
        if is_kept and not self._is_following:
            self._save(trigger_id)
        if circuit.state is not before.state:
            self._announce(trigger_id, binding, before, circuit)
        self._dispatcher.gate_changed(trigger_id)

    def _announce(self, trigger_id: str, binding: str, before: Circuit, circuit: Circuit) -> None:
        newest = self._registry.newest(trigger_id)
        destination = "" if newest is None else newest.spec.handler
        if circuit.state is CircuitState.OPEN and circuit.retry_at is not None:
            log.warn(
                "{binding}: the circuit to {destination} is open: {failures} deliveries in a row failed; the next is"
                " tried at {at}",
                binding=binding,
                destination=destination,
                failures=circuit.failures,
                at=rfc3339(circuit.retry_at),
            )
        elif circuit.state is CircuitState.CLOSED:
            log.info("{binding}: the circuit to {destination} is closed", binding=binding, destination=destination)
        self._lifecycle.emit(
            CircuitChanged(
                trigger_id=trigger_id,
                binding=binding,
                destination=destination,
                before=before.state,
                state=circuit.state,
                failures=circuit.failures,
                retry_at=circuit.retry_at,
            )
        )

    # Reloads and restarts

    def settings_changed(self) -> None:
        """
        Apply the circuit settings of the live generation; the states of the circuits stay as they are.

        Two kinds of circuits are closed: those that the settings switch off, and those that `load` found too old. Their
        closing is announced, since users who were notified that a circuit opened must be notified that it closed.
        """
        expired, self._expired = self._expired, {}
        for trigger_id, circuit in expired.items():
            newest = self._registry.newest(trigger_id)
            self._save(trigger_id)
            if newest is not None:
                self._announce(trigger_id, newest.key, circuit, CLOSED)
        for trigger_id in list(self._circuits):
            if trigger_id in self._registry.active and self.spec(trigger_id) is None:
                self.close(trigger_id)
            self._dispatcher.gate_changed(trigger_id)

    async def load(self) -> None:
        """
        Read the open circuits of an earlier server before any delivery begins; an upgrade reads them a second time.

        :raises EventLogUnavailable: the store cannot be read; the circuits in memory stay as they are.
        """
        found, failed = await self._records.read()
        now = self._wall.seconds()
        self._circuits, self._expired = {}, {}
        for trigger_id, each in found.items():
            kept = self._circuits if now < each.retry_at + KEPT_UNUSED else self._expired
            kept[trigger_id] = restored(each.failures, each.retry_at, each.reset, now)
        for trigger_id, deliveries in failed.items() if self._records.is_shared else ():
            self._circuits.setdefault(trigger_id, Circuit(failed=deliveries))
        self._dispatcher.gate_changed()

    def version_ended(self, event: VersionEnded) -> None:
        """Called when a version has ended; remove the failures of its trigger if it was the trigger's last version."""
        circuit = self._circuits.get(event.trigger_id)
        if event.is_last and circuit is not None and circuit.failed:
            del self._circuits[event.trigger_id]
            self._records.forget(event.trigger_id)

    def hand_over(self) -> None:
        """Stop writing, because another program has the circuits from now on."""
        self._records.close()

    def _save(self, trigger_id: str) -> None:
        """Write a circuit's record: a half-open one as open with a probe due now; a closed one has no record."""
        circuit, record = self.of(trigger_id), None
        if circuit.state is not CircuitState.CLOSED:
            spec = self.spec(trigger_id) or CircuitSpec()
            at = self._wall.seconds() if circuit.retry_at is None else circuit.retry_at
            refuses = spec.open == DEAD_LETTER
            record = OpenRecord(failures=circuit.failures, retry_at=at, reset=spec.reset, refuses=refuses)
        self._records.save(trigger_id, record)

    # Other servers on the store

    def follow(self) -> None:
        """Read the circuits again, since other servers on the store may have opened or closed some."""
        self._records.follow(self, self._circuits)

    def found(self, trigger_id: str, record: OpenRecord | None, failed: frozenset[int]) -> None:
        """
        See `ICircuits.found`.

        Do what another server did: open the circuit, close it, or take over its count of failures.
        """
        ours, newest, spec = self.of(trigger_id), self._registry.newest(trigger_id), self.spec(trigger_id)
        if newest is None:
            return
        now = self._wall.seconds()
        self._is_following = True
        try:
            if record is not None:
                if self._is_news(record, ours, now):
                    opened = restored(record.failures, record.retry_at, record.reset, now)
                    self._replace(trigger_id, newest.key, opened)
            elif ours.state is CircuitState.OPEN:
                self._replace(trigger_id, newest.key, CLOSED)
            elif ours.state is CircuitState.CLOSED and spec is not None and self._records.is_shared:
                self._replace(trigger_id, newest.key, replace(ours, failed=failed))
        finally:
            self._is_following = False

    def _is_news(self, record: OpenRecord, ours: Circuit, now: float) -> bool:
        """Return whether a record of an open circuit is newer than this server's, and is not its own claim."""
        if record.retry_at == ours.claimed_until:
            return False
        if ours.state is CircuitState.CLOSED:
            return now < record.retry_at + (KEPT_UNUSED if self._records.is_shared else 0.0)
        return now < record.retry_at and (ours.retry_at or 0.0) < record.retry_at


def _not_claimed(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("asking for the probe of a circuit failed, and is tried again", failure)


def refusal_of(trigger_id: str, circuit: Circuit) -> DeadLetter:
    """Return the dead letter of a delivery that does not wait while the circuit is open (``open = "dead_letter"``)."""
    until = "" if circuit.retry_at is None else f"; the next is tried at {rfc3339(circuit.retry_at)}"
    return DeadLetter(
        reason=CIRCUIT_OPEN,
        error_class=CIRCUIT_OPEN,
        error=f"the circuit of trigger {trigger_id!r} is open: {circuit.failures} deliveries in a row failed{until}",
    )
