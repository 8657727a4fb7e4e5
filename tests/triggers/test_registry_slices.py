"""An adopt that replaces thousands of versions: one step, and the rest in slices."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Lifecycle, VersionEnded
from harn.triggers.binding import ACTIVE, DRAINING, BindingVersion
from harn.triggers.registry import SLICE, Registry
from harn.triggers.routing import Ramp
from tests.triggers.examples import spec, version


class SliceTests(SynchronousTestCase):
    def setUp(self) -> None:
        lifecycle = Lifecycle()
        self.ended: list[str] = []
        lifecycle.subscribe(VersionEnded, lambda event: self.ended.append(event.binding))
        self.registry = Registry(lifecycle)
        self.old = self.adopt(1, 2 * SLICE + 1)

    def adopt(self, number: int, count: int) -> list[BindingVersion]:
        """Adopt version ``number`` of so many triggers in the place of all that are live."""
        replaced = list(self.registry.active.values())
        fresh = [version(number, spec(f"t{each}")) for each in range(count)]
        self.registry.adopt({each.id: each for each in fresh}, replaced, float(number))
        return fresh

    def test_what_nothing_needs_ends_in_slices(self) -> None:
        """After the step each replaced version drains; each slice ends some, but none that is in use."""
        busy = self.old[0]
        busy.lease()
        fresh = self.adopt(2, len(self.old))
        self.assertEqual(({each.state for each in fresh}, {each.state for each in self.old}), ({ACTIVE}, {DRAINING}))
        self.assertEqual((self.ended, len(self.registry.draining())), ([], len(self.old)))
        self.assertIs(self.registry.get("t1", 1), self.old[1])
        self.assertTrue(self.registry.check_replaced(SLICE))
        self.assertEqual(len(self.ended), SLICE - 1)
        self.assertTrue(self.registry.check_replaced(SLICE))
        self.assertFalse(self.registry.check_replaced(SLICE))
        self.assertEqual((len(self.ended), self.registry.draining()), (len(self.old) - 1, [busy]))
        busy.release()
        self.assertEqual(self.ended[-1], busy.key)

    def test_what_ends_before_its_turn_ends_once(self) -> None:
        """The last lease of a replaced version ends it at once; its slice finds nothing to do."""
        self.old[-1].lease()
        self.adopt(2, len(self.old))
        self.old[-1].release()
        self.assertEqual(self.ended, [self.old[-1].key])
        self.registry.check_replaced()
        self.assertEqual(sorted(self.ended), sorted(each.key for each in self.old))

    def test_next_adopt_ends_the_rest(self) -> None:
        """Nothing is left of one adopt when the next one has been made."""
        self.adopt(2, len(self.old))
        self.adopt(3, len(self.old))
        self.assertEqual(len(self.ended), len(self.old))
        self.registry.check_replaced()
        self.assertEqual((len(self.ended), self.registry.draining()), (2 * len(self.old), []))

    def test_replaced_versions_are_found(self) -> None:
        """Before its slice, and after it if something needs it, a replaced version is what its number names."""
        busy = self.old[1]
        busy.lease()
        fresh = self.adopt(2, len(self.old))
        for _ in range(2):
            self.assertIs(self.registry.get("t1", 1), busy)
            self.assertIs(self.registry.for_queued("t1", 1), busy)
            self.assertEqual(self.registry.versions("t1"), [busy, fresh[1]])
            self.registry.check_replaced()
        self.assertFalse(self.registry.has_replaced)

    def test_of_removed_triggers(self) -> None:
        """The last version of a removed trigger is its newest, and waits for its retries, in its slice as later."""
        self.registry.retry_waits("t3")
        self.adopt(2, 1)
        self.assertIs(self.registry.newest("t3"), self.old[3])
        self.registry.check_replaced()
        self.assertEqual(self.registry.draining(), [self.old[3]])
        self.registry.retries_end("t3", None)
        self.assertEqual((self.registry.draining(), self.registry.newest("t3")), ([], None))

    def test_both_versions_of_a_ramp(self) -> None:
        """Where a ramp's two versions are replaced, both drain."""
        stable, fresh = self.old[0], version(2, spec("t0"))
        stable.lease()
        fresh.lease()
        active = {**self.registry.active, "t0": fresh}
        self.registry.adopt(active, [], 2.0, {"t0": Ramp(stable, fresh, 0.5)})
        third = self.adopt(3, len(self.old))[0]
        self.assertEqual(self.registry.versions("t0"), [stable, fresh, third])
        for _ in range(2):
            self.registry.check_replaced()
            self.assertEqual(self.registry.draining(), [stable, fresh])
        stable.release()
        fresh.release()
        self.assertEqual(self.registry.versions("t0"), [third])
