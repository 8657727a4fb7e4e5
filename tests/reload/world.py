"""A coordinator among real parts, with interpreters and a connector that do as they are told, and files in a folder."""

from __future__ import annotations

import textwrap
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.connectors.catalog import Catalog
from harn.connectors.interfaces import PUBLIC, IConnectorPlugin, IReceiver
from harn.connectors.model import ConnectorContext, Events, NormalizedEvent
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Arrival, Intake, Taken
from harn.model.references import FunctionReference
from harn.observability.metrics import Metrics
from harn.orchestrator.recovery import Recovery
from harn.reload.build import Builder
from harn.reload.connections import Connections
from harn.reload.coordinator import Coordinator, Finished, Hooks
from harn.reload.drain import Drains
from harn.reload.generation import Candidate
from harn.reload.inputs import Surroundings
from harn.reload.interfaces import IRouteTable
from harn.reload.numbers import LastGeneration, VersionNumbers
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.resolution import Resolution
from harn.reload.revive import Reviver
from harn.store.memory.store import MemoryStore
from harn.testing.manifests import trigger_text
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry
from harn.triggers.route import Route
from harn.vm.bundle import Bundle
from harn.vm.interfaces import IInterpreters
from harn.vm.sources import BundleProblem
from tests.dispatch.world import Running, ScriptedInterpreter

START = 1_700_000_000.0
HANDLERS = "def on_event(event):\n    return 1\n"


class HeldPool:
    """A thread pool without threads: runs what it is given at once, or, while it is held, when it is let go."""

    def __init__(self) -> None:
        self.held = False
        self._waiting: deque[Callable[[], None]] = deque()

    def callInThreadWithCallback(self, done: Any, function: Any, *args: Any, **more: Any) -> None:
        """See `twisted.python.threadpool.ThreadPool`."""

        def work() -> None:
            try:
                result = function(*args, **more)
            except BaseException:
                done(False, Failure())
            else:
                done(True, result)

        if self.held:
            self._waiting.append(work)
        else:
            work()

    def let_go(self) -> None:
        """Run everything that waits, and hold nothing any more."""
        self.held = False
        while self._waiting:
            self._waiting.popleft()()


class ThreadClock(Clock):
    """A clock that has such a pool, and calls at once what a thread would have called."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = HeldPool()
        self.advance(START)

    def getThreadPool(self) -> HeldPool:
        """See `IReactorThreads`."""
        return self.pool

    def callFromThread(self, function: Any, *args: Any, **more: Any) -> None:
        """See `IReactorFromThreads`."""
        function(*args, **more)


class FakeInterpreter(ScriptedInterpreter):
    """Resolves as its maker is told, and keeps its calls until the test ends them."""

    def __init__(self, maker: FakeInterpreters, bundle: Bundle) -> None:
        super().__init__(bundle.bundle_id)
        self.bundle = bundle
        self._maker = maker

    def resolve(self, references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """Find each function whose ``def`` is in the source; or do what the maker is told."""
        if self._maker.on_resolve is not None:
            return self._maker.on_resolve()
        missing = [
            BundleProblem(
                file=self.bundle.modules[each.module].path,
                where=str(each),
                message=f"{each} is missing",
                reference=each,
            )
            for each in references
            if f"def {each.function}(".encode() not in self.bundle.modules[each.module].source
        ]
        return succeed(missing)

    def close(self) -> Deferred[None]:
        """Refuse further calls."""
        self._maker.alive.discard(self)
        return super().close()


@implementer(IInterpreters)
class FakeInterpreters:
    """
    :ivar on_resolve: what `FakeInterpreter.resolve` gives instead of looking.
    :ivar alive: those that are not closed.
    """

    def __init__(self) -> None:
        self.on_resolve: Callable[[], Deferred[Any]] | None = None
        self.on_create: Callable[[], Deferred[Any]] | None = None
        self.alive: set[FakeInterpreter] = set()
        self.made: list[FakeInterpreter] = []

    def create(self, bundle: Bundle) -> Deferred[Any]:
        """See `IInterpreters`."""
        if self.on_create is not None:
            return self.on_create()
        interpreter = FakeInterpreter(self, bundle)
        self.alive.add(interpreter)
        self.made.append(interpreter)
        return succeed(interpreter)


@implementer(IReceiver)
class FakeConnector:
    """Notes the steps of its life, and does in each what its plugin is told."""

    def __init__(self, plugin: FakePlugin, context: ConnectorContext) -> None:
        self.plugin = plugin
        self.context = context
        self.life: list[str] = []

    def _step(self, name: str) -> Any:
        self.life.append(name)
        self.plugin.life.append(f"{self.context.binding.trigger_id} {name}")
        script = self.plugin.script.get(name)
        return None if script is None else script()

    def prepare(self) -> Any:
        """See `IConnector`."""
        return self._step("prepare")

    def activate(self) -> Any:
        """See `IConnector`."""
        return self._step("activate")

    def quiesce(self) -> None:
        """See `IConnector`."""
        self._step("quiesce")

    def close(self) -> Any:
        """See `IConnector`."""
        self.plugin.alive.discard(self)
        return self._step("close")

    def verify(self, inbound: Any, now: float) -> None:
        """Everything is welcome."""

    def normalize(self, inbound: Any) -> Events:
        """One event."""
        return Events((NormalizedEvent(kind="thing", dedupe_key="d"),))


@implementer(IConnectorPlugin)
class FakePlugin:
    """
    The provider ``fake``.

    :ivar script: by step of a connector's life, what to do in it; ``connector`` is the making of one.
    """

    provider = "fake"
    kinds = ("webhook",)
    table = None
    schema = None
    required_secrets = ()
    optional_secrets = ("token",)
    authentication = PUBLIC
    outbound = ()

    def __init__(self) -> None:
        self.script: dict[str, Callable[[], Any]] = {}
        self.alive: set[FakeConnector] = set()
        self.life: list[str] = []

    def connector(self, context: ConnectorContext) -> Any:
        """See `IConnectorPlugin`."""
        made = FakeConnector(self, context)
        if "connector" in self.script:
            return self.script["connector"]()
        self.alive.add(made)
        return made

    def of(self, trigger_id: str) -> FakeConnector:
        """Give the one connector of a trigger that is not closed."""
        (found,) = [each for each in self.alive if each.context.binding.trigger_id == trigger_id]
        return found


@implementer(IRouteTable)
class FakeTable:
    """A route table; ``fails`` is raised by `build`."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.tree: Mapping[str, Route] = {}
        self.generation = 0

    def build(self, routes: Mapping[str, Route], changed: Any) -> Any:
        """See `IRouteTable`."""
        if self.fails is not None:
            raise self.fails
        return dict(routes)

    def swap(self, tree: Any, generation: int) -> None:
        """See `IRouteTable`."""
        self.tree, self.generation = tree, generation


@define
class Publications:
    """What observers were told."""

    finished: list[Finished]
    adopted: list[int]
    warnings: list[str]
    fails: Exception | None = None


def fake(trigger_id: str, **more: Any) -> str:
    """Write a trigger of the provider ``fake``."""
    return trigger_text(trigger_id, provider="fake", secret=more.pop("secret", None), events=(), **more)


def github(trigger_id: str, **more: Any) -> str:
    """Write a trigger of GitHub, with its secret."""
    return trigger_text(trigger_id, events=(), **more)


class World:
    """
    One server's coordinator.

    :param root: the folder of the manifest; kept over `restarted`.
    """

    def __init__(self, root: Path, *, clock: ThreadClock | None = None, store: MemoryStore | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.clock = ThreadClock() if clock is None else clock
        self.store = MemoryStore(self.clock) if store is None else store
        self.store.open()
        self.environ = {"HARN_SECRET_GITHUB_WEBHOOK_SECRET": "s-1", "HARN_SECRET_FAKE_TOKEN": "t-1"}
        self.plugin = FakePlugin()
        self.interpreters = FakeInterpreters()
        self.metrics = Metrics()
        self.registry = Registry()
        self.table = FakeTable()
        self.told = Publications([], [], [])
        self.dispatcher = Dispatcher(self.clock, self.store, self.registry, self.metrics, lambda: 0.0)
        self.intake = Intake(self.clock, self.store, self.dispatcher.submit, self.metrics)
        self.retired: list[str] = []
        self.drains = Drains(self.clock, self.dispatcher.move_on, lambda binding: self.retired.append(binding.key))
        self.registry.observe(self.drains.ended)
        self.resolution = Resolution(self.interpreters)
        catalog = Catalog.of([*Catalog.discover().plugins.values(), self.plugin])
        self.connections = Connections(self.clock, catalog)
        self.certificates: dict[str, Any] = {}
        self.builder = Builder(
            self.clock,
            str(root / "harn.toml"),
            "harn.toml",
            Surroundings(environ=self.environ, hash_key=b"k" * 32, **self.certificates),
            catalog,
            self.resolution,
            self.connections,
        )
        self.emitted: list[str] = []
        hooks = Hooks(adopted=self._adopted, publish=self._publish)
        self.coordinator = Coordinator(
            self.clock, self.builder, self.store, self.registry, self.table, self.drains, self._sink, hooks
        )
        reviver = Reviver(self.clock, self.store, self.resolution, self.registry)
        self.recovery = Recovery(self.clock, self.store, reviver, self.dispatcher, self.drains, lambda: 300.0)

    def _adopted(self, candidate: Candidate) -> None:
        self.told.adopted.append(candidate.generation.number)

    def _publish(self, finished: Finished) -> Deferred[list[str]]:
        self.told.finished.append(finished)
        if self.told.fails is not None:
            raise self.told.fails
        return succeed(list(self.told.warnings))

    def _sink(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        self.emitted.append(trigger_id)
        return succeed(None)

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

    def start(self) -> Deferred[ReloadReport]:
        """Build the first generation, with the numbers that the store remembers."""

        async def begin() -> ReloadReport:
            numbers = VersionNumbers(await self.store.latest_bindings())
            last = await LastGeneration.of(self.store)
            return await self.coordinator.start(numbers, last.number, last.digest)

        return Deferred.fromCoroutine(begin())

    def reload(self, **more: Any) -> Deferred[ReloadReport]:
        """Ask for a reload."""
        return self.coordinator.reload(ReloadRequest(**{"source": "cli", "actor": "test", **more}))

    def close(self) -> None:
        """End, as a server's end does, with no wait."""
        self.drains.stop()
        self.dispatcher.close()
        self.coordinator.close()
        Deferred.fromCoroutine(self.coordinator.release())

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
        return self.intake.take(route.binding, arrival, [event]).addBoth(over)

    @property
    def calls(self) -> list[Running]:
        """All calls that run."""
        return [running for interpreter in self.interpreters.made for running in interpreter.calls]

    def version(self, trigger_id: str) -> BindingVersion:
        """Give the live version of a trigger."""
        return self.registry.active[trigger_id]

    def live(self) -> dict[str, int]:
        """Give the version numbers that are live."""
        return {trigger_id: binding.version for trigger_id, binding in self.registry.active.items()}

    # Looking

    def stands(self) -> dict[str, Any]:
        """Everything that a reload that fails, or is dry, must leave as it is."""
        return {
            "current": self.coordinator.current,
            "active": self.registry.active,
            "states": [(binding, binding.state, binding.interpreter) for binding in self.registry],
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
