"""The decisions of a circuit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.circuits.circuit import Circuit, CircuitOutcome, CircuitState, restored
from harn.manifest.model import CircuitSpec

SPEC = CircuitSpec(failures=3, reset=60.0)
OPEN = Circuit(state=CircuitState.OPEN, failures=3, retry_at=160.0)


def after(*failed: int, circuit: Circuit | None = None) -> Circuit:
    """Return the circuit after these deliveries have failed an attempt, at second 100."""
    circuit = Circuit() if circuit is None else circuit
    for delivery_id in failed:
        circuit = circuit.ended(delivery_id, CircuitOutcome.FAILED, 100.0, SPEC)
    return circuit


class CircuitTests(SynchronousTestCase):
    """Single steps."""

    def test_attempts_of_one_delivery(self) -> None:
        """A delivery that fails again and again is one failure."""
        self.assertIs(after(*([1] * 10)).state, CircuitState.CLOSED)

    def test_opens(self) -> None:
        """The third delivery in a row that fails opens it, for its time."""
        self.assertIs(after(1, 2).state, CircuitState.CLOSED)
        self.assertEqual(after(1, 2, 3), OPEN)

    def test_success_between(self) -> None:
        """An answer begins the count again."""
        circuit = after(1, 2).ended(9, CircuitOutcome.ANSWERED, 100.0, SPEC)
        self.assertIs(after(3, 4, circuit=circuit).state, CircuitState.CLOSED)

    def test_neither(self) -> None:
        """A retry that the handler asked for, or an interruption, neither counts nor ends the count."""
        for outcome in (CircuitOutcome.POSTPONED, CircuitOutcome.INTERRUPTED):
            self.assertEqual(after(1, 2).ended(3, outcome, 100.0, SPEC), after(1, 2))

    def test_one_probe(self) -> None:
        """When its time is up one delivery begins, and nothing else until that has ended."""
        self.assertFalse(OPEN.may_begin(159.9))
        self.assertTrue(OPEN.may_begin(160.0))
        probing = OPEN.begun(7)
        self.assertIs(probing.state, CircuitState.HALF_OPEN)
        self.assertFalse(probing.may_begin(1e9))

    def test_outcome_of_the_probe(self) -> None:
        """An answer closes it, a failure or "later" opens it for its time, an interruption lets another begin."""
        probing = OPEN.begun(7)
        self.assertEqual(probing.ended(7, CircuitOutcome.ANSWERED, 170.0, SPEC), Circuit())
        for outcome in (CircuitOutcome.FAILED, CircuitOutcome.POSTPONED):
            self.assertEqual(probing.ended(7, outcome, 170.0, SPEC), replace(OPEN, retry_at=230.0))
        self.assertTrue(probing.ended(7, CircuitOutcome.INTERRUPTED, 170.0, SPEC).may_begin(170.0))

    def test_stragglers(self) -> None:
        """What began before it opened does not change it."""
        for circuit in (OPEN, OPEN.begun(7)):
            for outcome in CircuitOutcome:
                self.assertIs(circuit.ended(4, outcome, 130.0, SPEC), circuit)

    @given(st.floats(0, 1e9), st.floats(0, 1e9))
    def test_restored(self, now: float, retry_at: float) -> None:
        """After a restart, or a step of the clock, a probe begins within one reset."""
        circuit = restored(3, retry_at, 60.0, now)
        self.assertFalse(circuit.state is CircuitState.CLOSED)
        self.assertTrue(circuit.may_begin(now + 60.0))


class CircuitMachine(RuleBasedStateMachine):
    """Deliveries that begin and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 0.0
        self.running: set[int] = set()
        self.begun_while_closed: set[int] = set()
        self.last = 0
        self.failed_in_a_row: set[int] = set()

    @rule(seconds=st.sampled_from((1.0, 30.0, 60.0)))
    def time_passes(self, seconds: float) -> None:
        """Wait for this long."""
        self.now += seconds

    @precondition(lambda self: self.circuit.may_begin(self.now))
    @rule()
    def begin(self) -> None:
        """Begin a delivery, where the circuit allows it."""
        self.last += 1
        self.running.add(self.last)
        if self.circuit.state is CircuitState.CLOSED:
            self.begun_while_closed.add(self.last)
        self.circuit = self.circuit.begun(self.last)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(CircuitOutcome))
    def end(self, data: st.DataObject, outcome: CircuitOutcome) -> None:
        """End one that runs."""
        delivery_id = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(delivery_id)
        was = self.circuit.state
        self.circuit = self.circuit.ended(delivery_id, outcome, self.now, SPEC)
        if was is CircuitState.CLOSED:
            self.failed_in_a_row |= {delivery_id} if outcome is CircuitOutcome.FAILED else set()
            if outcome is CircuitOutcome.ANSWERED:
                self.failed_in_a_row.clear()
            opened = self.circuit.state is CircuitState.OPEN
            assert opened == (len(self.failed_in_a_row) >= SPEC.failures)
        if self.circuit.state is not CircuitState.CLOSED:
            self.failed_in_a_row.clear()

    @invariant()
    def one_probe(self) -> None:
        """Check that while it is half-open its probe runs, and no other that began since it opened."""
        if self.circuit.state is CircuitState.HALF_OPEN:
            assert self.circuit.probe in self.running
        assert self.running - self.begun_while_closed <= {self.circuit.probe}

    @invariant()
    def never_stuck(self) -> None:
        """Check that within one reset a delivery may begin, unless a probe runs."""
        if self.circuit.state is not CircuitState.HALF_OPEN:
            assert self.circuit.may_begin(self.now + SPEC.reset)


class MachineTests(SynchronousTestCase):
    """Any order."""

    def test_any_order(self) -> None:
        """Whatever begins and ends in whatever order, it opens when it should, and there is one probe."""
        run_state_machine_as_test(CircuitMachine)
