"""A dispatcher among real parts, with an interpreter that does as it is told and a store whose threads can be held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from harn.connectors.model import NormalizedEvent
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Arrival, Intake, Taken
from harn.errors import CallInterrupted
from harn.lifecycle import Accepted, DeadLettered, Lifecycle, Settled, VersionEnded
from harn.manifest.model import TriggerSpec
from harn.model.delivery import Claim, StoredDelivery
from harn.model.references import FunctionReference
from harn.observability.metrics import Metrics
from harn.observability.trigger_metrics import TriggerMetrics
from harn.testing.clocks import SteppedWall
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.counts import Counts
from harn.triggers.pool import KeyedPool, Shared
from harn.triggers.reconcile import reconcile
from harn.triggers.registry import Registry
from harn.vm.interfaces import IInterpreter
from harn.vm.model import Call, Returned
from harn.vm.sources import BundleProblem
from tests.triggers.examples import definition, spec

START = 1_700_000_000.0


@define(eq=False)
class Running:
    """A call that an interpreter was asked for, to be ended by the test."""

    call: Call
    alone: bool
    interpreter: ScriptedInterpreter
    ended: Deferred[Returned] = field(factory=Deferred)

    def returns(self, result: bytes | None = b"null") -> None:
        """End it with a result; None for a predicate that said no."""
        self.interpreter.calls.remove(self)
        self.ended.callback(Returned(result))

    def raises(self, error: Exception) -> None:
        """End it with an error."""
        self.interpreter.calls.remove(self)
        self.ended.errback(error)


@implementer(IInterpreter)
class ScriptedInterpreter:
    """Keeps its calls until the test ends them."""

    def __init__(self, bundle_id: str = "sha256:bundle") -> None:
        self.bundle_id = bundle_id
        self.calls: list[Running] = []
        self.closed = self.served = 0
        self.hook_failures: tuple[str, ...] = ()

    @property
    def running(self) -> int:
        """How many calls are in it."""
        return len(self.calls)

    def resolve(self, references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """Everything resolves."""
        return succeed([])

    def call(self, call: Call, *, alone: bool = False) -> Deferred[Returned]:
        """Begin a call."""
        running = Running(call, alone, self)
        running.ended = Deferred(lambda _: self.calls.remove(running))
        self.calls.append(running)
        if self.closed:
            running.raises(CallInterrupted("it is closed", suspect=False))
        return running.ended

    def serve(self) -> Deferred[Sequence[str]]:
        """Count how often it was told to; there are no hooks."""
        self.served += 1
        return succeed(self.hook_failures)

    def importing(self) -> str:
        """Nothing is being imported."""
        return ""

    def is_up(self) -> bool:
        """It never dies by itself."""
        return not self.closed

    def close(self) -> Deferred[None]:
        """Refuse further calls."""
        self.closed += 1
        return succeed(None)


class World:
    """
    A registry, a pool of interpreters, an intake and a dispatcher over one store.

    :param store: an earlier one that was closed, for a server after a restart.
    :param options: of the dispatcher.
    """

    def __init__(self, store: PumpedStore | None = None, clock: Clock | None = None, **options: Any) -> None:
        self.clock = Clock() if clock is None else clock
        if clock is None:
            self.clock.advance(START)
        self.wall = SteppedWall(self.clock)
        self.store = PumpedStore(self.wall) if store is None else store
        self.store.open()
        self.lifecycle = Lifecycle()
        self.registry = Registry(self.lifecycle)
        self.metrics = Metrics()
        TriggerMetrics(self.metrics, self.lifecycle)
        self.interpreters: list[ScriptedInterpreter] = []
        self.pool: KeyedPool[IInterpreter] = KeyedPool(lambda interpreter: interpreter.close())
        self.dispatcher = Dispatcher(
            self.clock,
            self.store,
            self.registry,
            self.lifecycle,
            lambda: 0.0,
            **{"max_outstanding": 4, "wall": self.wall, **options},
        )
        self.intake = Intake(self.clock, self.store, self.dispatcher.submit, self.lifecycle)
        self.ended: list[str] = []
        self.dead: Counter[tuple[str, str]] = Counter()
        self.lifecycle.subscribe(Accepted, self._accepted)
        self.lifecycle.subscribe(Settled, self._settled)
        self.lifecycle.subscribe(DeadLettered, self._dead_lettered)
        self.lifecycle.subscribe(VersionEnded, lambda event: self.ended.append(event.binding))
        self.numbers: dict[str, int] = {}
        self._definitions: dict[str, Definition] = {}
        self._interpreter: Shared[IInterpreter] | None = None

    # Reloading

    def adopt(self, triggers: Mapping[str, TriggerSpec], code: Mapping[str, str] | None = None) -> None:
        """Do what adopting a generation of these triggers does to registry and interpreters."""
        code = {} if code is None else code
        definitions = {each: definition(of, code.get(each, "code-1")) for each, of in triggers.items()}
        plan = reconcile(self._definitions, definitions)
        live = self.registry.active
        scripted = ScriptedInterpreter()
        self.interpreters.append(scripted)
        fresh = self.pool.add(object(), scripted)
        bindings: dict[str, BindingVersion] = {}
        for trigger_id, defined in definitions.items():
            if trigger_id in plan.unchanged:
                bindings[trigger_id] = live[trigger_id]
            else:
                number = self.numbers[trigger_id] = self.numbers.get(trigger_id, 0) + 1
                bindings[trigger_id] = BindingVersion(defined, number, "sha256:bundle")
        for binding in bindings.values():
            previous, binding.interpreter = binding.interpreter, fresh.retain()
            if previous is not None:
                previous.release()
        ended = [live[trigger_id] for trigger_id in (*plan.removed, *plan.modified)]
        self.registry.adopt(bindings, ended, self.clock.seconds())
        if self._interpreter is not None:
            self._interpreter.release()
        self._interpreter, self._definitions = fresh, definitions

    def counted(self, binding: BindingVersion | None = None) -> Counts:
        """Give the counts of a version, by default the live one of ``gh``."""
        return self.registry.counts.of((self.version() if binding is None else binding).key)

    def version(self, trigger_id: str = "gh") -> BindingVersion:
        """Give the live version of a trigger."""
        return self.registry.active[trigger_id]

    # Accepting

    def take(
        self,
        binding: BindingVersion | None = None,
        *events: NormalizedEvent,
        guard: Claim | None = None,
        body: bytes = b"{}",
    ) -> Deferred[Taken]:
        """Accept events as a request does: under a lease that is given back when everything is on disk."""
        held = self.version() if binding is None else binding
        held.lease()
        arrival = Arrival(headers={"x-id": "h-1"}, body=body, received_at=self.clock.seconds(), guard=guard)

        def over(result: Any) -> Any:
            held.release()
            return result

        return self.intake.take(held, arrival, events or (happened(),)).addBoth(over)

    # Looking

    @property
    def calls(self) -> list[Running]:
        """All calls that run, in all interpreters, in the order in which they began in each."""
        return [running for interpreter in self.interpreters for running in interpreter.calls]

    def call(self) -> Running:
        """Give the one call that runs."""
        (running,) = self.calls
        return running

    def rows(self) -> list[StoredDelivery]:
        """Give every row of the store, by id."""
        return self.store.rows()

    def states(self) -> list[str]:
        """Give the state of every row, by id."""
        return [row.state for row in self.rows()]

    def dead_reasons(self, trigger_id: str = "gh") -> dict[str, int]:
        """Give the counts of dead letters by reason, those of triggers that are gone too."""
        return {reason: count for (of, reason), count in self.dead.items() if of == trigger_id}

    def _accepted(self, event: Accepted) -> None:
        if event.delivery.dead is not None:
            self.dead[event.delivery.trigger_id, event.delivery.dead.reason] += 1

    def _settled(self, event: Settled) -> None:
        if event.settlement.dead is not None:
            self.dead[event.trigger_id, event.settlement.dead.reason] += 1

    def _dead_lettered(self, event: DeadLettered) -> None:
        if event.count:
            self.dead[event.trigger_id, event.reason] += event.count


def happened(kind: str = "issues.opened", dedupe_key: str = "d-1", **fields: Any) -> NormalizedEvent:
    """Make an event as a connector gives it."""
    return NormalizedEvent(kind=kind, dedupe_key=dedupe_key, **fields)


def one_trigger(**settings: Any) -> dict[str, TriggerSpec]:
    """Make the triggers of a manifest with one trigger, ``gh``."""
    return {"gh": spec("gh", **settings)}
