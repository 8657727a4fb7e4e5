"""A world that reports to a notebook everything that its machine could not see from outside."""

from __future__ import annotations

from typing import Any

from harn.reload.interfaces import Adopted
from harn.rollout.model import ProbationFailed
from harn.testing.kit import FakeInterpreter
from harn.triggers.binding import ACTIVE
from harn.vm.interfaces import Call
from tests.reload.expected import Notebook
from tests.reload.world import World


class WatchedWorld(World):
    """A world whose adoptions, calls and moves go into a notebook."""

    def __init__(self, notebook: Notebook, *args: Any, **more: Any) -> None:
        self.notebook = notebook
        super().__init__(*args, **more)
        self.interpreters.watcher = self
        moves = self.dispatcher._closing
        move_on, move_and_redrive = moves.move_on, moves.move_and_redrive

        def moved(binding: Any) -> Any:
            notebook.hold(binding.state != ACTIVE, "moved on while it serves", binding)
            notebook.moved.add(binding.key)
            notebook.ever_moved.add(binding.key)
            return move_on(binding)

        def redriven(binding: Any, since: float) -> Any:
            notebook.redriven.add(binding.key)
            return move_and_redrive(binding, since)

        moves.move_on, moves.move_and_redrive = moved, redriven
        end_ramp = self.registry.end_ramp

        def ended(trigger_id: str, winner: Any, *more: Any) -> None:
            ramp = self.registry.ramps[trigger_id]
            if winner is ramp.stable:
                notebook.aborted[ramp.fresh.key] = winner.version
                notebook.just_failed.add(ramp.fresh.key)
            end_ramp(trigger_id, winner, *more)

        self.registry.end_ramp = ended  # type: ignore[assignment]

    def call_begins(self, interpreter: FakeInterpreter, call: Call) -> None:
        """See `harn.testing.kit.CallWatcher`."""
        self.notebook.called(self, interpreter, call)

    def _failed(self, event: ProbationFailed) -> None:
        self.notebook.undone[event.probation.generation] = event.bindings

    def _adopted(self, event: Adopted) -> None:
        super()._adopted(event)
        candidate = event.candidate
        self.notebook.was_live.update(binding.key for binding in candidate.generation.bindings.values())
        self.notebook.gone.update(candidate.plan.removed)
        self.notebook.adopted(candidate, is_start=event.previous == 0)

    def restarted(self) -> WatchedWorld:
        """End, and give another server on the same folder and store, which is there again."""
        self.close()
        self.store.close()
        self.store.fail_reads = self.store.fail_writes = False
        return WatchedWorld(self.notebook, self.root, clock=self.clock, store=self.store)
