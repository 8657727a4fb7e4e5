"""The states of a delivery, and the steps between them."""

from twisted.trial.unittest import SynchronousTestCase

from harn.model.delivery import (
    CANCELLED,
    DEAD,
    DISCARDED,
    DONE,
    MOVES,
    PREDICATE,
    READY,
    REPLAYED,
    RUNNING,
    SKIPPED,
    UNFINISHED,
    WAITING,
    Settlement,
    State,
)


class StateTests(SynchronousTestCase):
    def test_every_state_has_moves(self) -> None:
        """The table names each state, and a way to each."""
        self.assertEqual(set(MOVES), set(State))
        self.assertEqual({state for moves in MOVES.values() for state in moves}, set(State))

    def test_final_states(self) -> None:
        """Nothing follows done, skipped, discarded or replayed; a dead letter stays until an operation on it."""
        self.assertEqual({state for state in State if not MOVES[state]}, {DONE, SKIPPED, DISCARDED, REPLAYED})
        self.assertEqual({READY, RUNNING, WAITING}, UNFINISHED)
        self.assertTrue(DEAD.may_become(REPLAYED))
        for state in set(State) - {DEAD}:
            self.assertFalse(state.may_become(REPLAYED) or state.may_become(DISCARDED), state)

    def test_done_only_by_running(self) -> None:
        """Only a running delivery becomes done."""
        self.assertEqual({state for state in State if state.may_become(DONE)}, {RUNNING})

    def test_names(self) -> None:
        """A state is written as users read it."""
        self.assertEqual(f"{State.DONE} {State('dead')!s}", "done dead")

    def test_succeeded(self) -> None:
        """A refusal by the predicate is what the code should do; what an operator cancelled is not."""

        def settlement(state: State, skip_reason: str | None = None) -> Settlement:
            return Settlement(delivery_id=1, state=state, version=1, attempts=1, skip_reason=skip_reason)

        self.assertTrue(settlement(DONE).succeeded)
        self.assertTrue(settlement(SKIPPED, PREDICATE).succeeded)
        self.assertFalse(settlement(SKIPPED, CANCELLED).succeeded)
        self.assertFalse(settlement(DEAD).succeeded)
