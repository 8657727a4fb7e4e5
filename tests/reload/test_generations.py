"""What outlives a generation and what does not: numbers, connectors, interpreters, leases, and nothing else."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail

from harn.connectors.interfaces import NormalizedEvent
from harn.errors import EventLogUnavailable, GateShut
from harn.lifecycle import VersionEnded
from tests.reload.case import GenerationCase
from tests.reload.world import HANDLERS, World, fake, github, interpreter_of


class NumberTests(GenerationCase):
    def test_a_b_a(self) -> None:
        """From A to B and back to A are three versions and three generations."""
        a, b = fake("t"), fake("t", extra="timeout = '3s'")
        self.started(a)
        seen = [self.world.live()["t"]]
        for text in (b, a):
            self.reloaded(text)
            seen.append(self.world.live()["t"])
        self.assertEqual((seen, self.world.coordinator.generation), ([1, 2, 3], 3))

    def test_restart_with_the_same_digest(self) -> None:
        """A start that finds what was adopted last keeps generation and versions, and reserves nothing."""
        self.started(fake("a"), fake("b"))
        self.reloaded(fake("a"), fake("b", extra="timeout = '3s'"))
        digest = self.world.serving.digest
        report = self.restarted()
        self.assertEqual((report.generation, report.digest), (2, digest))
        self.assertEqual(self.world.live(), {"a": 1, "b": 2})
        self.assertEqual(len(self.successResultOf(self.world.store.generations.history(9))), 2)

    def test_restart_with_another_digest(self) -> None:
        """A start that finds something else is the next generation; what did not change keeps its version."""
        self.started(fake("a"), fake("b"))
        self.world.manifest(fake("a"), fake("b", extra="timeout = '3s'"), fake("c"))
        self.assertEqual(self.restarted().generation, 2)
        self.assertEqual(self.world.live(), {"a": 1, "b": 2, "c": 1})
        self.assertEqual(self.restarted().generation, 2)
        self.assertEqual(self.world.live(), {"a": 1, "b": 2, "c": 1})

    def test_removed_and_added_again(self) -> None:
        """A trigger that comes back, the same or not, before or after a restart, continues counting."""
        self.started(fake("a"), fake("b"))
        self.reloaded(fake("a"))
        self.reloaded(fake("a"), fake("b"))
        self.assertEqual(self.world.live(), {"a": 1, "b": 2})
        self.reloaded(fake("a"))
        self.restarted()
        self.reloaded(fake("a"), fake("b"))
        self.assertEqual(self.world.live(), {"a": 1, "b": 3})

    def test_reserved_and_perhaps_adopted(self) -> None:
        """A number that may have served without a note is given to nothing else after a restart."""
        self.started(fake("a"))
        self.patch(self.world.store.generations, "adopted", lambda *_: fail(EventLogUnavailable("disk full")))
        self.assertEqual(self.reloaded(fake("b")).generation, 2)
        self.world.manifest(fake("a"))
        self.assertEqual(self.restarted().generation, 3)
        self.assertEqual(self.world.live(), {"a": 1})

    def test_version_that_served_unnoted(self) -> None:
        """A version that served, though the note of it failed, keeps its number; what it accepted runs on it."""
        self.started(fake("a"))
        real = self.world.store.generations.adopted
        self.world.store.generations.adopted = lambda *_: fail(EventLogUnavailable("disk full"))
        self.reloaded(fake("a", extra="timeout = '2s'"))
        self.world.store.generations.adopted = real
        self.world.dispatcher.apply(0)
        self.assertEqual(self.successResultOf(self.world.take("a")).bindings, ("a@v2",))
        self.world.manifest(fake("a", extra="timeout = '3s'"))
        self.assertEqual((self.restarted().generation, self.world.live()), (3, {"a": 3}))
        self.successResultOf(Deferred.fromCoroutine(self.world.recovery.automatic(10)))
        (running,) = self.world.calls
        self.assertEqual((running.call.binding, running.call.timeout), ("a@v2", 2.0))

    def test_unnoted_and_still_the_same(self) -> None:
        """A generation that served without a record, and is found again, keeps its versions."""
        self.started(fake("a"))
        self.patch(self.world.store.generations, "adopted", lambda *_: fail(EventLogUnavailable("disk full")))
        self.reloaded(fake("a", extra="timeout = '2s'"))
        self.assertEqual((self.restarted().generation, self.world.live()), (3, {"a": 2}))

    def test_reserved_and_failed(self) -> None:
        """A reload that fails after its numbers are durable uses none of them, over a restart neither."""
        self.started(fake("a"))
        for text in (fake("b"), fake("c")):
            self.world.manifest(fake("a"), text)
            self.world.plugin.script["activate"] = lambda: 1 / 0
            self.assertFalse(self.successResultOf(self.world.reload()).ok)
            self.flushLoggedErrors(ZeroDivisionError)
        self.world.manifest(fake("a"))
        self.assertEqual((self.restarted().generation, self.world.live()), (1, {"a": 1}))
        self.assertEqual(self.reloaded(fake("b")).generation, 2)
        self.assertEqual((self.restarted().generation, self.world.live()), (2, {"b": 1}))

    def test_first_start_that_fails(self) -> None:
        """The first generation is 1, however often a start failed before."""
        self.world.plugin.script["activate"] = lambda: 1 / 0
        self.world.manifest(fake("a"))
        self.assertFalse(self.successResultOf(self.world.start()).ok)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual((self.restarted().generation, self.world.live()), (1, {"a": 1}))

    def test_withdrawing_fails(self) -> None:
        """Numbers that cannot be withdrawn are left out by the next server."""
        self.started(fake("a"))

        def fills() -> None:
            self.world.store.fail_writes = True
            raise RuntimeError

        self.world.plugin.script["activate"] = fills
        self.world.manifest(fake("b"))
        self.assertFalse(self.successResultOf(self.world.reload()).ok)
        self.flushLoggedErrors(RuntimeError)
        self.world.store.fail_writes = False
        self.world.manifest(fake("a"))
        self.assertEqual((self.restarted().generation, self.world.live()), (3, {"a": 1}))

    def test_numbers_that_the_definitions_do_not_bear_out(self) -> None:
        """A digest that is known with fingerprints that are not (another release made them) gets new numbers."""
        self.started(fake("a"))
        self.patch(self.world.store.generations, "latest_bindings", self.with_other_fingerprints(self.world))
        self.assertEqual((self.restarted().generation, self.world.live()), (2, {"a": 2}))

    @staticmethod
    def with_other_fingerprints(world: World) -> object:
        """Return a ``latest_bindings`` that returns other fingerprints."""
        known = world.store.generations.latest_bindings

        def latest() -> object:
            return known().addCallback(
                lambda found: {key: replace(each, fingerprint="sha256:other") for key, each in found.items()}
            )

        return latest


class ConnectorTests(GenerationCase):
    def test_only_what_changed(self) -> None:
        """Editing one trigger's settings replaces its connector; the others' are not asked anything."""
        self.started(fake("a"), fake("b"))
        kept, old = self.world.plugin.of("a"), self.world.plugin.of("b")
        self.reloaded(fake("a"), fake("b", path="/other"))
        self.assertIs(self.world.plugin.of("a"), kept)
        self.assertEqual((kept.life, old.life), (["prepare", "activate"], ["prepare", "activate", "quiesce", "close"]))
        self.assertEqual(set(self.world.table.tree), {"/triggers/a", "/other"})

    def test_settings_of_ours_alone(self) -> None:
        """An edit that the connector does not see gives a new version on the same connector, its gate still open."""
        self.started(fake("a"))
        kept = self.world.plugin.of("a")
        self.reloaded(fake("a", extra="[triggers.retry]\nmax = 9\n"))
        self.assertEqual((self.world.live(), kept.life), ({"a": 2}, ["prepare", "activate"]))
        self.successResultOf(kept.context.emit("a", NormalizedEvent(kind="k", dedupe_key="d")))
        (shared,) = self.world.connections.pool
        self.assertEqual(shared.holders, 1)

    def test_rotated_secret(self) -> None:
        """A secret with another value replaces the connectors that use it, and no version."""
        self.started(github("a"), fake("b"), fake("c", extra='secrets = { token = "fake/token" }'))
        before = {shared.value.trigger_id: shared for shared in self.world.connections.pool}
        self.world.environ["HARN_SECRET_FAKE_TOKEN"] = "t-2"
        report = self.reloaded()
        after = {shared.value.trigger_id: shared for shared in self.world.connections.pool}
        self.assertEqual({each for each in "abc" if before[each] is not after[each]}, {"c"})
        self.assertEqual((report.generation, report.modified, self.world.live()["c"]), (2, (), 1))
        self.assertEqual(self.world.plugin.of("c").context.binding.secrets, {"token": (b"t-2",)})
        self.assertIs(self.world.table.tree["/triggers/c"].receiver, after["c"])

    def test_what_has_stopped_serves_no_more(self) -> None:
        """A connector that a request still holds is not taken into a later generation of the same settings."""
        self.started(fake("a"))
        old, route = self.world.plugin.of("a"), self.world.table.tree["/triggers/a"]
        route.lease()
        self.reloaded(fake("a", path="/other"))
        self.reloaded(fake("a"))
        new = self.world.table.tree["/triggers/a"].receiver.value.connector
        self.assertIsNot(new, old)
        self.assertEqual((new.life, old.life), (["prepare", "activate"], ["prepare", "activate", "quiesce"]))
        route.release()
        self.assertEqual(old.life[-1], "close")

    def test_gates(self) -> None:
        """A connector's own events pass from the step on, those of the one it replaces until then, and no others."""
        self.started(fake("a"))
        event = NormalizedEvent(kind="k", dedupe_key="d")
        old = self.world.plugin.of("a")
        refused: list[object] = []

        def activate() -> None:
            new = next(each for each in self.world.plugin.alive if each is not old)
            refused.append(self.failureResultOf(new.context.emit("a", event), GateShut))
            self.successResultOf(old.context.emit("a", event))

        self.world.plugin.script["activate"] = activate
        self.reloaded(fake("a", path="/other"))
        self.assertEqual((len(refused), [each.call.trigger_id for each in self.world.calls]), (1, ["a"]))
        self.successResultOf(self.world.plugin.of("a").context.emit("a", event))
        self.failureResultOf(old.context.emit("a", event), GateShut)

    def test_quiesce_that_raises(self) -> None:
        """Whatever a connector raises when it is quiesced, the step goes through."""
        for number, kind in enumerate((ValueError, SystemExit, KeyboardInterrupt, GeneratorExit)):
            world = self.world = World(Path(self.mktemp()))
            self.started(fake("a"))

            def script(kind: type[BaseException] = kind) -> None:
                raise kind("why")

            world.plugin.script["quiesce"] = script
            report = self.reloaded(fake("b"))
            self.assertEqual((report.generation, set(world.table.tree)), (2, {"/triggers/b"}), number)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_paths_change_hands(self) -> None:
        """Two triggers may exchange their paths in one reload."""
        self.started(fake("a", path="/x"), fake("b", path="/y"))
        self.reloaded(fake("a", path="/y"), fake("b", path="/x"))
        found = {path: route.binding.key for path, route in self.world.table.tree.items()}
        self.assertEqual(found, {"/x": "b@v2", "/y": "a@v2"})


class InterpreterTests(GenerationCase):
    def test_same_bundle(self) -> None:
        """An edit of the manifest alone keeps the live interpreter, also when it names a further function."""
        self.world.write("handlers.py", HANDLERS + "def other(event): ...\n")
        self.started(fake("a"))
        (live,) = self.world.interpreters.alive
        self.reloaded(fake("a"), fake("b"))
        self.assertEqual(len(self.world.interpreters.made), 1)
        self.reloaded(fake("a"), fake("b", handler="handlers:other"))
        self.assertEqual(self.world.interpreters.alive, {live})
        self.assertEqual(len(self.world.interpreters.made), 2)
        self.reloaded(fake("a", handler="handlers:other"), fake("b"))
        self.assertEqual(len(self.world.interpreters.made), 2)

    def test_unchanged_bindings_move(self) -> None:
        """When another module changes, an unchanged binding keeps its version and gets the new interpreter."""
        self.world.write("more.py", HANDLERS)
        self.started(fake("a"), fake("b", handler="more:on_event"))
        self.successResultOf(self.world.take("a"))
        (running,) = self.world.calls
        kept = self.world.version("a")
        self.world.write("more.py", HANDLERS + "#")
        self.assertEqual(self.reloaded().modified, ("b",))
        old, new = self.world.interpreters.made
        self.assertIs(self.world.version("a"), kept)
        self.assertIs(interpreter_of(kept).value, new)
        self.assertEqual((old.closed, kept.in_flight), (0, 1))
        running.returns()
        self.assertEqual((old.closed, new.closed, kept.in_flight), (1, 0, 0))

    def test_back_to_what_still_runs(self) -> None:
        """Going back to code whose interpreter still has work takes that interpreter up again."""
        self.started(fake("a"))
        self.successResultOf(self.world.take("a"))
        first = self.world.interpreters.made[0]
        self.world.write("handlers.py", HANDLERS + "#")
        self.reloaded()
        self.world.write("handlers.py", HANDLERS)
        self.reloaded()
        self.assertEqual((self.world.live(), self.world.interpreters.alive), ({"a": 3}, {first}))
        self.world.calls[0].returns()
        self.assertEqual(first.closed, 0)


class LifetimeTests(GenerationCase):
    def test_an_old_generation_dies(self) -> None:
        """Once a generation is replaced and drained, nothing refers to it: its count frees it, not the collector."""
        self.started(fake("a"), github("b"))
        self.successResultOf(self.world.take("a"))
        generation = self.world.serving
        references: dict[str, Any] = {
            "generation": weakref.ref(generation),
            "binding": weakref.ref(generation.bindings["a"]),
            "connector": weakref.ref(generation.connectors["a"].value.connector),
            "interpreter": weakref.ref(self.world.interpreters.made[0]),
            "bundle": weakref.ref(generation.inputs.bundle),
            "route": weakref.ref(generation.routes["/triggers/a"]),
            "inputs": weakref.ref(generation.inputs),
        }
        del generation
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.world.write("handlers.py", HANDLERS + "# another\n")
        self.reloaded(fake("a", path="/other"), github("b"))
        self.world.calls[0].returns()
        self.world.interpreters.made.pop(0)
        self.world.told.finished.clear()
        alive = {name for name, reference in references.items() if reference() is not None}
        self.assertEqual(alive, set())

    def test_a_subscriber_that_fails(self) -> None:
        """Whoever subscribes to the end of versions cannot break the step."""
        self.started(fake("a"))
        self.world.lifecycle.subscribe(VersionEnded, lambda event: 1 / 0)
        self.assertEqual(self.reloaded(fake("b")).removed, ("a",))
        self.assertEqual((self.world.table.generation, self.world.retired), (2, ["a@v1"]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
