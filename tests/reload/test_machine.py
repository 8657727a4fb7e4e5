"""A machine that edits, reloads, breaks and restarts at random: what a reload promises holds after each step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import PreconditionFailed, StageFailed
from harn.reload.report import ReloadReport
from harn.triggers.binding import ACTIVE
from tests.reload.world import HANDLERS, World, fake

IDS = ("a", "b", "c")
MODULES = ("handlers", "more")
TIMEOUTS = ("3s", "4s")


def _break(error: Exception) -> Any:
    raise error


FAILURES: dict[str, Callable[[World], None]] = {
    "resolve": lambda world: setattr(world.interpreters, "on_resolve", Deferred),
    "create": lambda world: setattr(world.interpreters, "on_create", lambda: _break(RuntimeError("no process"))),
    "prepare": lambda world: world.plugin.script.update(prepare=lambda: _break(RuntimeError("no"))),
    "prepare hangs": lambda world: world.plugin.script.update(prepare=Deferred),
    "activate": lambda world: world.plugin.script.update(activate=lambda: _break(RuntimeError("no"))),
    "store": lambda world: setattr(world.store, "fail_writes", True),
    "tree": lambda world: setattr(world.table, "fails", StageFailed("swap", "no tree")),
}


class ReloadMachine(RuleBasedStateMachine):
    """
    One server on one folder.

    :ivar wanted: what the manifest on disk says: for each trigger its module and time-out.
    :ivar accepted: what the last manifest said that a reload or start adopted.
    """

    world: World

    @initialize()
    def begin(self) -> None:
        """Start with one trigger."""
        self.folder = Path(tempfile.mkdtemp(prefix="harn-machine-"))
        self.code = dict.fromkeys(MODULES, 0)
        self.wanted: dict[str, tuple[str, str]] = {"a": ("handlers", "3s")}
        self.is_bad = False
        self.generation = 0
        self.versions: dict[str, int] = {}
        self.known: dict[str, tuple[int, Any]] = {}
        self.taken = 0
        self.world = World(self.folder)
        self.save()
        self.adopted(self.ended(self.world.start()))

    def teardown(self) -> None:
        """End it, and see that nothing is left."""
        if hasattr(self, "world"):
            self.world.close()
            assert not self.world.plugin.alive
            shutil.rmtree(self.folder)

    # What is on disk

    def save(self) -> None:
        """Write everything."""
        for module, number in self.code.items():
            self.world.write(f"{module}.py", f"{HANDLERS}# {number}\n")
        triggers = [
            fake(trigger_id, handler=f"{module}:on_event", extra=f'timeout = "{timeout}"')
            for trigger_id, (module, timeout) in self.wanted.items()
        ]
        self.world.manifest(*triggers)
        self.is_bad = False

    @rule(trigger_id=st.sampled_from(IDS), module=st.sampled_from(MODULES), timeout=st.sampled_from(TIMEOUTS))
    def edit(self, trigger_id: str, module: str, timeout: str) -> None:
        """Add or modify a trigger."""
        self.wanted[trigger_id] = (module, timeout)
        self.save()

    @rule(trigger_id=st.sampled_from(IDS))
    def remove(self, trigger_id: str) -> None:
        """Remove a trigger."""
        self.wanted.pop(trigger_id, None)
        self.save()

    @rule(module=st.sampled_from(MODULES), number=st.integers(0, 2))
    def edit_code(self, module: str, number: int) -> None:
        """Edit a module, perhaps back to what it was."""
        self.code[module] = number
        self.save()

    @rule(kind=st.sampled_from(("toml", "key", "function", "syntax")))
    def spoil(self, kind: str) -> None:
        """Write something that no reload may adopt."""
        if not self.wanted:
            return
        self.is_bad = True
        text = (self.folder / "harn.toml").read_text()
        if kind == "toml":
            self.world.write("harn.toml", text + "\n[[triggers")
        elif kind == "key":
            self.world.write("harn.toml", text + "\ncolour = 1\n")
        else:
            for module in MODULES:
                self.world.write(
                    f"{module}.py", "def on_ev(event): ...\n" if kind == "function" else "def on_event(:\n"
                )

    # Reloads

    def ended(self, asked: Deferred[ReloadReport]) -> ReloadReport:
        """Let the time of a stage that hangs pass, and give the report."""
        found: list[Any] = []
        asked.addBoth(found.append)
        if not found:
            self.world.clock.advance(30.0)
        (report,) = found
        assert isinstance(report, ReloadReport), report
        return report

    def adopted(self, *reports: ReloadReport) -> None:
        """Compare what was adopted with what is on disk, and the numbers with those before."""
        assert all(report.ok for report in reports), reports
        assert not self.is_bad
        world = self.world
        added = {trigger_id for report in reports for trigger_id in report.added}
        assert set(world.live()) == set(self.wanted)
        for trigger_id, binding in world.registry.active.items():
            spec = binding.spec
            content = (spec.handler, spec.timeout, binding.definition.handler_code)
            before = self.known.get(trigger_id)
            if before is not None:
                version, known = before
                is_same = known == content and trigger_id not in added
                assert binding.version >= version
                assert (binding.version == version) <= (known == content), (before, binding)
                assert not is_same or binding.version == version, (before, binding, reports)
            self.known[trigger_id] = (binding.version, content)
        assert world.coordinator.generation >= self.generation
        self.generation = world.coordinator.generation

    @rule(force=st.booleans(), is_matched=st.booleans())
    def reload(self, force: bool, is_matched: bool) -> None:
        """Reload what is on disk."""
        etag = self.world.coordinator.etag if is_matched else None
        before = self.world.stands()
        report = self.ended(self.world.reload(force=force, if_match=etag))
        if self.is_bad:
            assert not report.ok
            assert self.world.stands() == before
        else:
            self.adopted(report)
            assert self.world.plugin.life or not self.wanted

    @rule(force=st.booleans())
    def dry_run(self, force: bool) -> None:
        """A dry run changes nothing, whatever it finds."""
        before = self.world.stands()
        report = self.ended(self.world.reload(dry_run=True, force=force))
        assert report.ok != self.is_bad
        assert self.world.stands() == before

    @rule()
    def reload_for_another(self) -> None:
        """A reload of another generation than the live one is refused."""
        before = self.world.stands()
        refused: list[Any] = []
        self.world.reload(if_match='"0-other"').addBoth(refused.append)
        assert refused[0].check(PreconditionFailed)
        assert self.world.stands() == before

    @rule(names=st.lists(st.sampled_from(sorted(FAILURES)), min_size=1, max_size=2), force=st.booleans())
    def reload_that_fails(self, names: list[str], force: bool) -> None:
        """A reload in which something breaks changes nothing; unless it did not come that far."""
        world = self.world
        for call in world.clock.getDelayedCalls():
            if call.getTime() <= world.clock.seconds() + 30.0:
                return  # a drain's deadline passes while the reload hangs
        before = world.stands()
        for name in names:
            FAILURES[name](world)
        report = self.ended(world.reload(force=force))
        world.plugin.script.clear()
        world.interpreters.on_resolve = world.interpreters.on_create = world.table.fails = None
        world.store.fail_writes = False
        if report.ok:
            self.adopted(report)
        else:
            assert world.stands() == before

    @rule(count=st.integers(2, 5))
    def many_at_once(self, count: int) -> None:
        """Plain requests that come together are answered by two reloads, truly."""
        world = self.world
        before = len(world.told.finished)
        world.clock.pool.held = True
        asked = [world.reload(actor=str(number)) for number in range(count)]
        world.clock.pool.let_go()
        reports = [self.ended(each) for each in asked]
        assert [report.actor for report in reports] == [str(number) for number in range(count)]
        assert len(world.told.finished) == before + 2
        if not self.is_bad:
            self.adopted(*reports)

    # Deliveries and time

    @rule(trigger_id=st.sampled_from(IDS))
    def deliver(self, trigger_id: str) -> None:
        """Accept an event."""
        if trigger_id in self.world.live():
            self.taken += 1
            self.world.take(trigger_id, f"d{self.taken}")

    @rule()
    def finish(self) -> None:
        """Let the call end that has run for the longest time."""
        if self.world.calls:
            self.world.calls[0].returns()

    @rule(seconds=st.sampled_from((1.0, 400.0)))
    def wait(self, seconds: float) -> None:
        """Let time pass, past the deadline of drains perhaps."""
        self.world.clock.advance(seconds)

    @rule()
    def restart(self) -> None:
        """End the server and start the next; a manifest that is bad is mended first."""
        if self.is_bad:
            self.save()
        same = self.world.coordinator.current
        self.world = self.world.restarted()
        report = self.ended(self.world.start())
        if report.digest == same.digest:
            assert report.generation == same.number, (report, same.number)
        self.adopted(report)
        recovered: list[Any] = []
        Deferred.fromCoroutine(self.world.recovery.automatic(1000)).addBoth(recovered.append)
        assert isinstance(recovered[0], int), recovered
        self.world.clock.advance(0)

    # What always holds

    @invariant()
    def one_generation_serves(self) -> None:
        """The coordinator, the table and the registry are of one generation."""
        if not hasattr(self, "world"):
            return
        current, table = self.world.coordinator.current, self.world.table
        assert table.generation == current.number == self.world.coordinator.generation
        assert table.tree == current.routes
        assert self.world.registry.active is current.bindings
        assert all(binding.state == ACTIVE for binding in current.bindings.values())
        assert {route.binding for route in table.tree.values()} == set(current.bindings.values())

    @invariant()
    def nothing_is_leaked(self) -> None:
        """Each pool holds exactly what generations, versions and calls hold."""
        if not hasattr(self, "world"):
            return
        world = self.world
        current = world.coordinator.current
        connectors = {shared: shared.holders for shared in world.connections.pool}
        assert connectors == dict.fromkeys(current.connectors.values(), 1)
        assert all(shared.value.gate.is_open for shared in connectors)
        assert {shared.value.connector for shared in connectors} == world.plugin.alive
        holders = dict.fromkeys(world.resolution.pool, 0)
        holders[current.interpreter] += 1
        for binding in world.registry:
            holders[binding.interpreter] += 1
        for interpreter in holders:
            holders[interpreter] += interpreter.value.running
        assert holders == {shared: shared.holders for shared in world.resolution.pool}
        assert {shared.value for shared in holders} == world.interpreters.alive

    @invariant()
    def leases_are_deliveries(self) -> None:
        """Each unfinished delivery that does not wait holds one lease, and nothing else does."""
        if not hasattr(self, "world"):
            return
        ready = sum(entry.ready for entry in _now(self.world.store.backlog()))
        assert sum(binding.in_flight for binding in self.world.registry) == ready
        draining = [binding for binding in self.world.registry.draining() if binding.in_flight <= 0]
        assert not draining


def _now(source: Deferred[Any]) -> Any:
    found: list[Any] = []
    source.addCallback(found.append)
    return found[0]


class MachineTest(SynchronousTestCase):
    def test_machine(self) -> None:
        """No sequence of edits, reloads, failures, deliveries and restarts breaks a promise."""
        run_state_machine_as_test(
            ReloadMachine,
            settings=settings(
                max_examples=150,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        self.flushLoggedErrors(RuntimeError)
