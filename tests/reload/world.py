"""A coordinator among real parts, and its files in a folder."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from harn.connectors.catalog import Catalog
from harn.connectors.model import NormalizedEvent
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Arrival, Intake, Taken
from harn.lifecycle import Lifecycle, VersionEnded
from harn.observability.metrics import Metrics
from harn.observability.trigger_metrics import TriggerMetrics
from harn.orchestrator.recovery import Recovery
from harn.reload.build import Builder
from harn.reload.connections import Connections
from harn.reload.coordinator import Coordinator
from harn.reload.drain import Drains
from harn.reload.generation import Candidate
from harn.reload.hooks import Finished, Hooks
from harn.reload.inputs import Surroundings
from harn.reload.numbers import LastGeneration, VersionNumbers
from harn.reload.reader import FileReader
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.resolution import Resolution
from harn.reload.revive import Reviver
from harn.rollout.trials import Deeds, Trials
from harn.testing.clocks import SteppedWall
from harn.testing.manifests import trigger_text
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry
from tests.dispatch.world import Running
from tests.reload.fakes import FakeInterpreters, FakePlugin, FakeTable, ThreadClock

HANDLERS = "def on_event(event):\n    return 1\n"


@define
class Publications:
    """What observers were told."""

    finished: list[Finished]
    adopted: list[int]
    warnings: list[str]
    fails: Exception | None = None
    runs: list[str] = field(factory=list)


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

    def __init__(self, root: Path, *, clock: ThreadClock | None = None, store: PumpedStore | None = None) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.clock = ThreadClock() if clock is None else clock
        self.wall = SteppedWall(self.clock)
        self.store = PumpedStore(self.wall) if store is None else store
        self.store.open()
        self.environ = {"HARN_SECRET_GITHUB_WEBHOOK_SECRET": "s-1", "HARN_SECRET_FAKE_TOKEN": "t-1"}
        self.plugin = FakePlugin()
        self.interpreters = FakeInterpreters()
        self.metrics = Metrics()
        self.lifecycle = Lifecycle()
        self.registry = Registry(self.lifecycle)
        TriggerMetrics(self.metrics, self.lifecycle)
        self.table = FakeTable()
        self.told = Publications([], [], [])
        self.dispatcher = Dispatcher(self.clock, self.store, self.registry, self.lifecycle, lambda: 0.0, wall=self.wall)
        self.intake = Intake(self.clock, self.store, self.dispatcher.submit, self.lifecycle)
        self.retired: list[str] = []
        self.drains = Drains(
            self.clock,
            self.dispatcher.move_on,
            self.lifecycle,
            self.wall,
        )
        self.lifecycle.subscribe(VersionEnded, lambda event: self.retired.append(event.binding))
        self.resolution = Resolution(self.interpreters)
        catalog = Catalog.of([*Catalog.discover().plugins.values(), self.plugin])
        self.connections = Connections(self.clock, catalog, self.wall)
        self.certificates: dict[str, Any] = {}
        self.builder = Builder(
            FileReader(self.clock, self.wall, self.clock.pool),
            str(root / "harn.toml"),
            "harn.toml",
            Surroundings(environ=self.environ, hash_key=b"k" * 32, **self.certificates),
            catalog,
            self.resolution,
            self.connections,
        )
        self.emitted: list[str] = []
        self.notes: list[tuple[str, Mapping[str, Any]]] = []
        hooks = Hooks(
            adopted=self._adopted,
            publish=self._publish,
            began=lambda: self.told.runs.append("began"),
            ended=lambda report: self.told.runs.append("refused" if report is None else report.status),
        )
        reviver = Reviver(self.clock, self.store, self.resolution, self.registry, self.wall)
        deeds = Deeds(
            take_back=lambda binding, since: self.dispatcher.take_back(binding, since),
            note=lambda kind, payload: self.notes.append((kind, payload)),
        )
        self.trials = Trials(self.clock, self.store, self.store, self.registry, self.lifecycle, deeds, self.wall)
        self.coordinator = Coordinator(
            self.clock,
            self.builder,
            self.store,
            self.registry,
            self.table,
            self.drains,
            self._sink,
            hooks,
            reviver,
            self.trials,
            self.wall,
        )
        self.recovery = Recovery(self.wall, self.store, reviver, self.dispatcher, self.drains, lambda: 300.0)

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

    def start(self, **more: Any) -> Deferred[ReloadReport]:
        """Build the first generation, with the numbers that the store remembers."""

        async def begin() -> ReloadReport:
            numbers = VersionNumbers(await self.store.latest_bindings())
            last = await LastGeneration.of(self.store)
            return await self.coordinator.start(numbers, last.number, last.digest, **more)

        return Deferred.fromCoroutine(begin())

    def reload(self, **more: Any) -> Deferred[ReloadReport]:
        """Request a reload."""
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
        return self.intake.take(route.binding, arrival, [event], ramp=route.ramp).addBoth(over)

    @property
    def calls(self) -> list[Running]:
        """All calls that run."""
        return [running for interpreter in self.interpreters.made for running in interpreter.calls]

    def version(self, trigger_id: str) -> BindingVersion:
        """Return the live version of a trigger."""
        return self.registry.active[trigger_id]

    def live(self) -> dict[str, int]:
        """Return the version numbers that are live."""
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
