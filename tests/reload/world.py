"""A coordinator among real parts, and its files in a folder."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, evolve, field
from msgspec import to_builtins
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from harn.connectors.catalog import Catalog
from harn.connectors.interfaces import NormalizedEvent
from harn.destinations.catalog import DestinationCatalog
from harn.dispatch import feature as dispatch
from harn.dispatch.decisions import Arrival
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.failure_log import FailureLog
from harn.dispatch.intake import Intake, Taken
from harn.lifecycle import VersionEnded
from harn.orchestrator.recovery import RecoveryService
from harn.reload import feature as reload
from harn.reload.adopt import Drains, LiveGeneration
from harn.reload.archive import Reviver
from harn.reload.build import Builder
from harn.reload.connections import Connections
from harn.reload.coordinator import Coordinator
from harn.reload.generation import Generation
from harn.reload.inputs import ExternalInputs
from harn.reload.interfaces import Adopted, DryRun, IPlanner, IReloadPublisher, IRouteTable, ReloadBegan, ReloadEnded
from harn.reload.reader import FileReader
from harn.reload.report import START, Finished, ReloadReport, ReloadRequest
from harn.reload.results import ReloadPlan
from harn.reload.runs import Start
from harn.reload.targets import Resolution, Targets
from harn.rollout import feature as rollout
from harn.rollout.feature import Startup, continued
from harn.rollout.model import ProbationFailed, RolloutRecorded
from harn.rollout.probation import Reverter
from harn.rollout.rollouts import Rollouts
from harn.testing.kit import OPTIONS, KitServer
from harn.testing.manifests import trigger_text
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import BindingVersion
from harn.triggers.pool import Shared
from harn.triggers.registry import Registry
from tests.dispatch.world import ScriptedCall
from tests.reload.fakes import FakePlugin, FakeTable, ThreadClock

T = TypeVar("T")

HANDLERS = "def on_event(event):\n    return 1\n"


@define
class Publications:
    """The events that observers received."""

    finished: list[Finished]
    adopted: list[int]
    warnings: list[str]
    fails: Exception | None = None
    runs: list[str] = field(factory=list)


def present(value: T | None) -> T:
    """Return a value that must be there."""
    assert value is not None
    return value


def fake(trigger_id: str, *, path: str | None = None, extra: str = "", **more: Any) -> str:
    """Write a trigger of the provider ``fake``."""
    lines = _with_path(path, extra)
    return trigger_text(trigger_id, provider="fake", secret=more.pop("secret", None), events=(), extra=lines, **more)


def github(trigger_id: str, *, path: str | None = None, extra: str = "", **more: Any) -> str:
    """Write a trigger of GitHub, with its secret."""
    return trigger_text(trigger_id, events=(), extra=_with_path(path, extra), **more)


def _with_path(path: str | None, extra: str) -> str:
    return extra if path is None else f'path = "{path}"\n{extra}'


def interpreter_of(binding: BindingVersion) -> Shared[Any]:
    """Return the interpreter of a version whose handler is a local function."""
    destination: Any = binding.destination
    found: Shared[Any] = destination.interpreter
    return found


def handlers_in(interpreter: Any) -> bytes:
    """Return the source of the handlers in a scripted interpreter."""
    source: bytes = interpreter.bundle.modules["handlers"].source
    return source


@implementer(IPlanner)
class NoPlanner:
    """Says nothing of what a dry run found."""

    async def describe(self, dry_run: DryRun) -> ReloadPlan:
        """See `IPlanner`."""
        return ReloadPlan(triggers={})


@implementer(IReloadPublisher)
class World:
    """
    One server's coordinator.

    :param root: the folder of the manifest; kept over `restarted`.
    """

    def __init__(self, root: Path, *, clock: ThreadClock | None = None, store: PumpedStore | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.clock = ThreadClock() if clock is None else clock
        self.environ = {"HARN_SECRET_GITHUB_WEBHOOK_SECRET": "s-1", "HARN_SECRET_FAKE_TOKEN": "t-1"}
        options = evolve(OPTIONS, manifest=str(root / "harn.toml"), manifest_name="harn.toml")
        server = KitServer(self.clock, options=options, environ=self.environ, store=store)
        self.server = server
        self.wall, self.store, self.interpreters = server.wall, server.store, server.interpreters
        self.metrics, self.lifecycle = server.metrics, server.lifecycle
        self.plugin, self.table = FakePlugin(), FakeTable()
        self.told = Publications([], [], [])
        self.retired: list[str] = []
        self.notes: list[tuple[str, Mapping[str, Any]]] = []
        self._subscribe()
        server.add(self.table, IRouteTable)
        server.add(NoPlanner(), IPlanner)
        server.add(self, IReloadPublisher)
        server.add(Catalog.of([*Catalog.discover().plugins.values(), self.plugin]))
        server.add(DestinationCatalog.discover())
        server.add(FileReader(self.clock, self.wall, self.clock.pool))
        server.add(ExternalInputs(environ=self.environ, hash_key=b"k" * 32))
        dispatch.install(server)
        reload.install_builder(server)
        reload.install_drains(server)
        reload.install_coordinator(server)
        rollout.install(server)
        self.registry, self.dispatcher, self.intake = server[Registry], server[Dispatcher], server[Intake]
        self.builder, self.resolution, self.connections = server[Builder], server[Resolution], server[Connections]
        self.targets = server[Targets]
        self.drains, self.coordinator = server[Drains], server[Coordinator]
        self.rollouts, self.reverter, self.startup = server[Rollouts], server[Reverter], server[Startup]
        self.recovery = RecoveryService(
            self.wall, self.store, server[Reviver], self.dispatcher, self.drains, self.registry
        )

    def _subscribe(self) -> None:
        self.lifecycle.subscribe(VersionEnded, lambda event: self.retired.append(event.binding))
        self.lifecycle.subscribe(Adopted, self._adopted)
        self.lifecycle.subscribe(ReloadBegan, lambda event: self.told.runs.append("began"))
        self.lifecycle.subscribe(ReloadEnded, self._ended)
        self.lifecycle.subscribe(ProbationFailed, self._failed)
        self.lifecycle.subscribe(
            RolloutRecorded, lambda event: self.notes.append((event.kind, to_builtins(event.payload)))
        )

    def _recorded(self, event: RolloutRecorded) -> None:
        self.notes.append((event.kind, to_builtins(event.payload)))

    def _adopted(self, event: Adopted) -> None:
        self.told.adopted.append(event.candidate.generation.number)

    def _ended(self, event: ReloadEnded) -> None:
        self.told.runs.append("refused" if event.report is None else event.report.status)

    def _failed(self, event: ProbationFailed) -> None:
        """Called before a generation is undone."""

    def publish(self, finished: Finished) -> Deferred[list[str]]:
        """See `IReloadPublisher`."""
        self.told.finished.append(finished)
        if self.told.fails is not None:
            raise self.told.fails
        return succeed(list(self.told.warnings))

    # Files

    def write(self, name: str, text: str) -> None:
        """Write a file into the folder."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")

    def manifest(self, *triggers: str, head: str = "[orchestrator]\nallow_empty = true\n") -> None:
        """Write the manifest, and the handlers where there are none."""
        self.write("harn.toml", head + "\n" + "\n".join(triggers))
        if not (self.root / "handlers.py").exists():
            self.write("handlers.py", HANDLERS)

    # Its life

    def start(self, recall: int | None = None, reason: str = "", *, waits: bool = False) -> Deferred[ReloadReport]:
        """Build the first generation, with the numbers that the store remembers; ``recall``: whatever the files say."""

        async def begin() -> ReloadReport:
            if recall is None:
                return await self.startup.run(waits=waits)
            last = await self.coordinator.numbers.read()
            start = Start(last=last, ramps=continued(await self.rollouts.load()))
            request = ReloadRequest(source=START, actor=START, recall=recall, reason=reason)
            return await self.coordinator.start(request, start, waits=waits)

        return Deferred.fromCoroutine(begin())

    def reload(self, **more: Any) -> Deferred[ReloadReport]:
        """Request a reload."""
        return self.coordinator.reload(ReloadRequest(**{"source": "cli", "actor": "test", **more}))

    def close(self) -> None:
        """End, as a server's end does, with no wait."""
        self.drains.close()
        self.dispatcher.close()
        self.server[FailureLog].close()
        self.coordinator.close()
        self.server[LiveGeneration].close()
        Deferred.fromCoroutine(self.server[Builder].close())

    def restarted(self) -> World:
        """End, and give another server on the same folder and store."""
        self.close()
        self.store.close()
        return World(self.root, clock=self.clock, store=self.store)

    # Deliveries

    def take(self, trigger_id: str, dedupe_key: str = "d") -> Deferred[Taken]:
        """Accept an event as a request does."""
        route = self.table.tree[f"/triggers/{trigger_id}"]
        route.lease()
        arrival = Arrival(headers={}, body=b"{}", received_at=self.clock.seconds())

        def over(result: Any) -> Any:
            route.release()
            return result

        event = NormalizedEvent(kind="thing", dedupe_key=dedupe_key)
        return self.intake.take(route.binding, arrival, [event], ramp=route.ramp).addBoth(over)

    @property
    def calls(self) -> list[ScriptedCall]:
        """All calls that run."""
        return [running for interpreter in self.interpreters.made for running in interpreter.calls]

    def version(self, trigger_id: str) -> BindingVersion:
        """Return the live version of a trigger."""
        return self.registry.active[trigger_id]

    def live(self) -> dict[str, int]:
        """Return the version numbers that are live."""
        return {trigger_id: binding.version for trigger_id, binding in self.registry.active.items()}

    # Looking

    @property
    def serving(self) -> Generation:
        """The live generation."""
        return present(self.coordinator.current)

    @property
    def last(self) -> ReloadReport:
        """The report of the last reload."""
        return present(self.coordinator.last)

    @property
    def last_failed(self) -> ReloadReport:
        """The report of the last reload that failed."""
        return present(self.coordinator.last_failed)

    def code_of(self, binding: BindingVersion) -> bytes:
        """Return the source of the handlers that a version runs."""
        return handlers_in(interpreter_of(binding).value)

    def stands(self) -> dict[str, Any]:
        """Return everything that a reload that fails, or is dry, must leave as it is."""
        return {
            "current": self.coordinator.current,
            "active": self.registry.active,
            "states": [(binding, binding.state, binding.destination) for binding in self.registry],
            "tree": self.table.tree,
            "served": self.table.generation,
            "interpreters": Counter({shared: shared.holders for shared in self.resolution.pool}),
            "found": [shared.key for shared in self.resolution.pool],
            "connectors": Counter({shared: shared.holders for shared in self.connections.pool}),
            "gates": {shared: shared.value.gate.is_open for shared in self.connections.pool},
            "alive": set(self.interpreters.alive),
            "made": set(self.plugin.alive),
            "timers": [call.getTime() for call in self.clock.getDelayedCalls()],
            "adopted": list(self.told.adopted),
            "draining": self.drains.generations,
        }
