"""A dispatcher among real parts, with an interpreter under the test's control and a store whose threads can be held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from harn.connectors.interfaces import NormalizedEvent
from harn.destinations.targets import LocalFunctions
from harn.dispatch.decisions import Arrival
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.feature import install as install_dispatch
from harn.dispatch.intake import Intake, Taken
from harn.dispatch.parts import DispatchLimits
from harn.dispatch.pauses import Pauses
from harn.lifecycle import Accepted, DeadLettered, Settled, VersionEnded
from harn.manifest.model import TriggerSpec
from harn.model.delivery import Claim, StoredDelivery
from harn.observability.counts import VersionCounts
from harn.reload.targets import InterpreterPool
from harn.testing.clocks import START
from harn.testing.kit import KitServer, ScriptedInterpreter
from harn.testing.kit import ScriptedCall as ScriptedCall
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.reconcile import reconcile
from harn.triggers.registry import Registry
from harn.vm.interfaces import IInterpreter
from tests.triggers.examples import definition, spec


class World:
    """
    A registry, a pool of interpreters, an intake and a dispatcher over one store.

    :param store: an earlier one that was closed, for a server after a restart.
    :param options: of the dispatcher; ``traces``: the contexts of attempts, as while traces are on.
    """

    def __init__(self, store: PumpedStore | None = None, clock: Clock | None = None, **options: Any) -> None:
        self.clock = Clock() if clock is None else clock
        if clock is None:
            self.clock.advance(START)
        server = KitServer(self.clock, store=store)
        server.traces = options.pop("traces", None)
        install_dispatch(server, DispatchLimits(**{"max_outstanding": 4, **options}))
        self.wall, self.store, self.makers = server.wall, server.store, server.interpreters
        self.metrics, self.lifecycle = server.metrics, server.lifecycle
        self.registry, self.dispatcher, self.intake = server[Registry], server[Dispatcher], server[Intake]
        self.pauses = server[Pauses]
        self.interpreters: list[ScriptedInterpreter] = []
        self.pool = InterpreterPool()
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
        """Apply the adoption of a generation of these triggers to registry and interpreters."""
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
            previous, binding.destination = binding.destination, LocalFunctions(fresh).retain()
            if previous is not None:
                previous.release()
        ended = [live[trigger_id] for trigger_id in (*plan.removed, *plan.modified)]
        self.registry.adopt(bindings, ended, self.clock.seconds())
        if self._interpreter is not None:
            self._interpreter.release()
        self._interpreter, self._definitions = fresh, definitions

    def counted(self, binding: BindingVersion | None = None) -> VersionCounts:
        """Return the counts of a version, by default the live one of ``gh``."""
        return self.metrics.version((self.version() if binding is None else binding).key)

    def version(self, trigger_id: str = "gh") -> BindingVersion:
        """Return the live version of a trigger."""
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
    def calls(self) -> list[ScriptedCall]:
        """All calls that run, in all interpreters, in the order in which they began in each."""
        return [running for interpreter in self.interpreters for running in interpreter.calls]

    def call(self) -> ScriptedCall:
        """Return the one call that runs."""
        (running,) = self.calls
        return running

    def rows(self) -> list[StoredDelivery]:
        """Return every row of the store, by id."""
        return self.store.rows()

    def states(self) -> list[str]:
        """Return the state of every row, by id."""
        return [row.state for row in self.rows()]

    def dead_reasons(self, trigger_id: str = "gh") -> dict[str, int]:
        """Return the counts of dead letters by reason, those of triggers that are gone too."""
        return {reason: count for (of, reason), count in self.dead.items() if of == trigger_id}

    def _accepted(self, event: Accepted) -> None:
        for each in event.dead:
            assert each.delivery.dead is not None
            self.dead[each.delivery.trigger_id, each.delivery.dead.reason] += 1

    def _settled(self, event: Settled) -> None:
        for each in event.others:
            if each.settlement.dead is not None:
                self.dead[each.trigger_id, each.settlement.dead.reason] += 1

    def _dead_lettered(self, event: DeadLettered) -> None:
        if event.count:
            self.dead[event.trigger_id, event.reason] += event.count


def happened(kind: str = "issues.opened", dedupe_key: str = "d-1", **fields: Any) -> NormalizedEvent:
    """Make an event as a connector gives it."""
    return NormalizedEvent(kind=kind, dedupe_key=dedupe_key, **fields)


def one_trigger(**settings: Any) -> dict[str, TriggerSpec]:
    """Make the triggers of a manifest with one trigger, ``gh``."""
    return {"gh": spec("gh", **settings)}
