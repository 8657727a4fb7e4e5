"""Live and draining versions, leases, and when a version ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Lifecycle, VersionEnded
from harn.manifest.model import RetrySpec
from harn.triggers.binding import ACTIVE, DRAINING, TERMINATED, BindingVersion, Stage
from harn.triggers.registry import Registry
from harn.triggers.routing import Route
from tests.triggers.examples import NotingPool, spec, version


class RegistryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lifecycle = Lifecycle()
        self.registry = Registry(self.lifecycle)
        self.ended: list[str] = []
        self.lifecycle.subscribe(VersionEnded, lambda event: self.ended.append(event.binding))

    def adopt(self, *live: BindingVersion) -> None:
        """Adopt these, and drain what was live and is not among them."""
        replaced = [binding for binding in self.registry.active.values() if binding not in live]
        self.registry.adopt({binding.id: binding for binding in live}, replaced, 0.0)

    def test_idle_version_ends_at_once(self) -> None:
        """What holds no lease when it is replaced is terminated in the same step."""
        old, new = version(1), version(2)
        self.adopt(old)
        self.adopt(new)
        self.assertEqual((old.state, new.state, self.ended), (TERMINATED, ACTIVE, ["gh@v1"]))
        self.assertEqual(list(self.registry), [new])

    def test_leased_version_drains_until_the_last_lease(self) -> None:
        """Each lease keeps it findable; the last one's end terminates it, and calls the observers once."""
        old, new = version(1), version(2)
        self.adopt(old)
        old.lease(2)
        self.adopt(new)
        self.assertIs(self.registry.get("gh", 1), old)
        self.assertIs(self.registry.newest("gh"), new)
        old.release()
        self.assertEqual((old.state, self.ended), (DRAINING, []))
        old.release()
        self.assertEqual((old.state, self.ended), (TERMINATED, ["gh@v1"]))
        self.assertIsNone(self.registry.get("gh", 1))

    def test_its_interpreter_is_released_with_it(self) -> None:
        """The end of a version releases its interpreter."""
        pool = NotingPool()
        old = version(1)
        old.destination = pool.add("i", "interpreter")  # type: ignore[assignment]  # only counted here
        self.adopt(old)
        self.adopt()
        self.assertEqual((pool.closed, old.destination), (["interpreter"], None))

    def test_waiting_retries_keep_a_removed_triggers_last_version(self) -> None:
        """While retries of a removed trigger wait, its newest version drains, and no older one does."""
        first, second = version(1), version(2)
        self.adopt(first)
        first.lease()
        self.adopt(second)
        self.registry.retry_waits("gh")
        self.adopt()
        first.release()
        self.assertEqual((first.state, second.state), (TERMINATED, DRAINING))
        self.registry.retries_end("gh", 1)
        self.assertEqual((second.state, dict(self.registry.waiting)), (TERMINATED, {}))

    def test_waiting_retries_do_not_keep_a_version_that_was_moved_on(self) -> None:
        """At the drain's deadline the retries do not keep it any more."""
        only = version(1)
        self.adopt(only)
        self.registry.retry_waits("gh")
        self.adopt()
        only.become(Stage.CLOSED)
        self.registry.check(only)
        self.assertEqual(only.state, TERMINATED)

    def test_a_trigger_that_comes_back_ends_its_last_version(self) -> None:
        """Waiting retries go to the new version, so that the old one, kept for them alone, ends in the same step."""
        first, second = version(1), version(2)
        self.adopt(first)
        self.registry.retry_waits("gh")
        self.adopt()
        self.assertEqual(first.state, DRAINING)
        self.adopt(second)
        self.assertEqual((first.state, list(self.registry)), (TERMINATED, [second]))

    def test_versions_are_given_oldest_first(self) -> None:
        """Draining ones by number, then the live one."""
        made = [version(number) for number in (1, 2, 3)]
        for each in made:
            each.lease()
            self.adopt(each)
        self.assertEqual(self.registry.versions("gh"), made)
        self.assertEqual(self.registry.versions("other"), [])
        self.assertEqual(list(self.registry), [made[2], made[0], made[1]])

    @given(st.lists(st.booleans(), max_size=30))
    def test_any_order_of_leases(self, steps: list[bool]) -> None:
        """A draining version ends exactly when as many leases were given back as were taken."""
        self.setUp()
        binding = version(1)
        self.adopt(binding)
        binding.lease()
        self.adopt()
        held = 1
        for take in steps:
            if not held:
                break
            (binding.lease if take else binding.release)()
            held += 1 if take else -1
            self.assertEqual((binding.in_flight, binding.state == TERMINATED), (held, held == 0))


class ForRetryTests(SynchronousTestCase):
    def choose(self, retry: str, *, live: bool = True, own: bool = True, moved: bool = False) -> int | None:
        """Return which version a retry of ``gh@v1`` runs on, with v2 live (or removed, and draining)."""
        registry = Registry(Lifecycle())
        first, second = version(1), version(2, spec(retry=RetrySpec(version=retry)))
        registry.adopt({"gh": first}, [], 0.0)
        first.lease()
        second.lease()
        registry.adopt({"gh": second}, [first], 0.0)
        if moved:
            first.become(Stage.CLOSED)
        if not live:
            registry.adopt({}, [second], 0.0)
        chosen = registry.for_retry("gh", first if own else None)
        return None if chosen is None else chosen.version

    def test_latest(self) -> None:
        """A retry runs on the newest version, so that a fixed handler picks it up."""
        self.assertEqual(self.choose("latest"), 2)

    def test_pinned(self) -> None:
        """A pinned one runs on its own while that drains, then on the newest."""
        self.assertEqual(self.choose("pinned"), 1)
        self.assertEqual(self.choose("pinned", own=False), 2)
        self.assertEqual(self.choose("pinned", moved=True), 2)

    def test_gone(self) -> None:
        """Of a removed trigger it runs on its own version while that drains, then on what still does."""
        self.assertEqual(self.choose("latest", live=False), 1)
        self.assertEqual(self.choose("latest", live=False, own=False), 2)

    def test_nothing_left(self) -> None:
        """None when no version is left, or the last one's time is up."""
        registry = Registry(Lifecycle())
        self.assertIsNone(registry.for_retry("gh", None))
        only = version(1)
        registry.adopt({"gh": only}, [], 0.0)
        only.lease()
        registry.adopt({}, [only], 0.0)
        only.become(Stage.CLOSED)
        self.assertIsNone(registry.for_retry("gh", only))


class RouteTests(SynchronousTestCase):
    def test_a_lease_holds_version_and_receiver(self) -> None:
        """A request that began on a route may finish on it after any number of reloads."""
        pool = NotingPool()
        binding = version(1)
        receiver = pool.add("r", "receiver")
        route = Route(path="/x", binding=binding, receiver=receiver, authentication="public")
        registry = Registry(Lifecycle())
        registry.adopt({"gh": binding}, [], 0.0)
        route.lease()
        registry.adopt({}, [binding], 0.0)
        receiver.release()
        self.assertEqual((binding.state, pool.closed), (DRAINING, []))
        route.release()
        self.assertEqual((binding.state, pool.closed), (TERMINATED, ["receiver"]))
