"""A reload of the code that thousands of triggers use: no turn of the reactor does all of it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from harn.reload.report import ReloadReport
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import SLICE
from tests.reload.case import GenerationCase
from tests.reload.world import HANDLERS, fake

COUNT = 2 * SLICE + 1
TEN_SECONDS = '[orchestrator]\nreload.drain_timeout = "10s"\n'


class SliceTests(GenerationCase):
    def after_each_turn(self, running: Deferred[ReloadReport]) -> list[int]:
        """Return after each turn of the clock until a reload's report how many versions have ended."""
        ended: list[int] = []

        def turned() -> None:
            ended.append(len(self.world.retired))
            if not running.called:
                self.world.clock.callLater(0, turned)

        self.world.clock.callLater(0, turned)
        self.world.clock.advance(0)
        return ended

    def test_replaced_versions_end_in_slices(self) -> None:
        """The step that adopts ends none of them; each turn after it ends some, and the report comes after the last."""
        self.started(*(fake(f"t{number}") for number in range(COUNT)))
        self.world.write("handlers.py", HANDLERS + "EDIT = 1\n")
        running = self.world.reload()
        self.assertEqual((self.world.told.adopted, self.world.retired), ([1, 2], []))
        ended = self.after_each_turn(running)
        self.assertEqual(ended, [0, SLICE, 2 * SLICE, COUNT])
        report = self.successResultOf(running)
        self.assertEqual((len(report.modified), report.draining), (COUNT, ()))
        self.assertEqual({*self.world.live().values()}, {2})

    def test_unchanged_versions_move_in_slices(self) -> None:
        """So do the versions that stay when the code of another trigger has changed."""
        self.world.write("other.py", HANDLERS)
        other = fake("other", handler="other:on_event")
        self.started(other, *(fake(f"t{number}") for number in range(COUNT)))
        self.world.write("other.py", HANDLERS + "EDIT = 1\n")
        self.assertEqual(self.after_each_turn(self.world.reload()), [1, 1, 1, 1])
        self.assertEqual(len({self.world.code_of(binding) for binding in self.world.registry.active.values()}), 1)
        self.assertEqual(len(self.world.interpreters.alive), 1)

    def draining(self) -> list[BindingVersion]:
        """Replace many versions that something holds; return them."""
        self.started(*(fake(f"t{number}") for number in range(COUNT)), head=TEN_SECONDS)
        old = list(self.world.registry.active.values())
        for binding in old:
            binding.lease()
        self.world.write("handlers.py", HANDLERS + "EDIT = 1\n")
        self.world.clock.callLater(0, lambda: None)
        running = self.world.reload()
        self.world.clock.advance(0)
        self.successResultOf(running)
        return old

    def test_a_deadline_moves_on_in_slices(self) -> None:
        """At the deadline of thousands of versions each turn moves some of them on; each is moved once."""
        old = self.draining()
        closed: list[int] = []

        def turned() -> None:
            closed.append(sum(binding.is_closed for binding in old))
            if closed[-1] < COUNT:
                self.world.clock.callLater(0, turned)

        self.world.clock.callLater(10.0, turned)
        self.world.clock.advance(10.0)
        self.assertEqual(closed[-1], COUNT)
        self.assertEqual(sorted(set(closed) - {0}), [SLICE, 2 * SLICE, COUNT])
        self.assertEqual({each.deadline for each in self.world.drains.describe()}, {None})
        for binding in old:
            binding.release()
        self.assertEqual((self.world.registry.draining(), self.world.drains.generations), ([], ()))

    def test_the_server_ends_between_slices(self) -> None:
        """What is left drains on with the next server."""
        old = self.draining()
        self.world.clock.callLater(10.0, self.world.drains.close)
        self.world.clock.advance(10.0)
        self.assertEqual(sum(binding.is_closed for binding in old), SLICE)
        for binding in old:
            binding.release()
