"""Earlier versions from the store: many at once, those that cannot be revived, and nothing held by a failed start."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from harn.errors import EventLogUnavailable
from harn.reload.archive import PATIENCE, Reviver
from harn.vm.sources import BundleProblem
from tests.reload.case import GenerationCase
from tests.reload.world import HANDLERS, fake, present

NAMES = ("a", "b", "c", "d")
BROKEN = BundleProblem(file="other.py", where="other", message="it needs what is not installed", reference=None)


class RevivingTests(GenerationCase):
    """`Reviver.versions`, in a server that has not begun."""

    def setUp(self) -> None:
        """Leave two versions of each trigger in the store, each of a bundle; two triggers share a module."""
        super().setUp()
        for number in (1, 2):
            self.world.write("handlers.py", f"{HANDLERS}# {number}\n")
            self.world.write("other.py", f"{HANDLERS}# {number}\n")
            triggers = [fake(name, handler="handlers:on_event" if name < "c" else "other:on_event") for name in NAMES]
            self.started(*triggers) if number == 1 else self.reloaded(*triggers)
        self.world = self.world.restarted()
        self.asked: Counter[str] = Counter()
        store = self.world.store.generations
        for name in ("bindings", "bundle"):
            self.patch(store, name, self.counted(name, getattr(store, name)))

    def counted(self, name: str, real: Any) -> Any:
        """Count how often the store is asked."""

        def ask(*values: Any) -> Any:
            self.asked[name] += 1
            return real(*values)

        return ask

    def reviving(self, *keys: tuple[str, int]) -> Deferred[Any]:
        """Revive these versions."""
        world = self.world
        return Deferred.fromCoroutine(
            Reviver(world.clock, world.store.generations, world.resolution, world.targets, world.registry).versions(
                keys
            )
        )

    def revived(self, *keys: tuple[str, int]) -> dict[tuple[str, int], Any]:
        """Revive these versions, which takes no time."""
        return dict(self.successResultOf(self.reviving(*keys)))

    def holders(self) -> list[int]:
        """Return how often each interpreter is held."""
        return sorted(shared.holders for shared in self.world.resolution.pool)

    def test_many_of_one_bundle(self) -> None:
        """However many versions a bundle serves, it is read once, and has one interpreter, which each version holds."""
        keys = [(name, version) for name in NAMES for version in (2, 1)]
        found = self.revived(*keys)
        self.assertEqual(list(found), keys)
        self.assertEqual([(each.id, each.version) for each in found.values()], keys)
        self.assertEqual(self.asked, {"bindings": 1, "bundle": 2})
        self.assertEqual((self.holders(), len(self.world.interpreters.made)), ([4, 4], 2))
        sources = {each.destination.interpreter.value.bundle.modules["other"].source[-2:-1] for each in found.values()}
        self.assertEqual(sources, {b"1", b"2"})
        for each in found.values():
            each.destination.release()
        self.assertEqual(self.world.interpreters.alive, set())

    def test_none(self) -> None:
        """Where nothing is needed nothing is asked for; what the store does not know is left out."""
        self.assertEqual((self.revived(), self.asked), ({}, {}))
        self.assertEqual(list(self.revived(("a", 9), ("a", 1), ("x", 1))), [("a", 1)])

    def test_one_that_cannot_be_read(self) -> None:
        """A definition that is damaged costs its own version alone."""
        spoil = "UPDATE binding_versions SET spec = ? WHERE trigger_id = 'b' AND version = 1"
        self.world.store.query(spoil, b"rubbish")
        self.assertEqual(list(self.revived(*((name, 1) for name in NAMES))), [("a", 1), ("c", 1), ("d", 1)])
        self.assertEqual(self.holders(), [3])

    def test_damaged_bundle(self) -> None:
        """Sources that are not what was put there run nowhere; versions of other bundles are brought back."""
        (record,) = self.successResultOf(self.world.store.generations.bindings([("a", 1)]))
        whole = present(self.successResultOf(self.world.store.generations.bundle(record.bundle_id)))
        for spoilt in (whole.replace(b"return 1", b"return 9"), b"rubbish", b""):
            self.world.store.query("UPDATE bundles SET data = ? WHERE bundle_id = ?", spoilt, record.bundle_id)
            found = self.revived(("a", 1), ("b", 1), ("a", 2))
            self.assertEqual(list(found), [("a", 2)])
            found["a", 2].destination.release()

    def test_module_that_does_not_load(self) -> None:
        """It fails the versions of its own functions, once for all of them, and no others."""
        resolutions = self.world.interpreters.resolutions = [succeed([BROKEN]), succeed([])]
        self.assertEqual(list(self.revived(*((name, 1) for name in NAMES))), [("c", 1), ("d", 1)])
        self.assertEqual((resolutions, self.holders(), len(self.world.interpreters.alive)), ([], [2], 1))

    def test_module_that_hangs(self) -> None:
        """A bundle whose code hangs is waited for once."""
        self.world.interpreters.resolutions = []
        reviving = self.reviving(*((name, 1) for name in NAMES))
        self.world.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(reviving), {})
        self.assertEqual((self.holders(), self.world.interpreters.alive), ([], set()))

    def test_given_up_meanwhile(self) -> None:
        """Who no longer waits for it leaves nothing held, of what was brought back neither."""
        self.world.interpreters.resolutions = [succeed([])]
        reviving = self.reviving(("a", 1), ("b", 1), ("a", 2))
        self.assertEqual((self.holders(), len(self.world.interpreters.alive)), ([2], 2))
        reviving.cancel()
        self.failureResultOf(reviving, CancelledError)
        self.assertEqual((self.holders(), self.world.interpreters.alive), ([], set()))
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_the_event_log_is_away(self) -> None:
        """Without the store the versions cannot be read: that error is the caller's to handle."""
        self.world.store.fail_reads = True
        self.failureResultOf(self.reviving(("a", 1)), EventLogUnavailable)

    def test_a_start_with_ramps(self) -> None:
        """A start brings back all stable versions together, and each ramp continues."""
        triggers = [fake(name, extra="timeout = '9s'") for name in NAMES]
        self.successResultOf(self.world.start())
        self.world.manifest(*triggers)
        self.assertEqual(len(self.successResultOf(self.world.reload(ramp=0.1)).ramps), 4)
        self.world = self.world.restarted()
        self.asked.clear()
        self.assertTrue(self.successResultOf(self.world.start()).ok)
        self.assertEqual(sorted(self.world.registry.ramps), list(NAMES))
        self.assertEqual(self.asked, {"bindings": 1, "bundle": 1})
