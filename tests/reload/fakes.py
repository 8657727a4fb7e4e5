"""A connector and a route table that do as the test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zope.interface import implementer

from harn.connectors.interfaces import PUBLIC, ConnectorContext, Events, IConnectorPlugin, IReceiver, NormalizedEvent
from harn.reload.interfaces import IRouteTable
from harn.testing.clocks import START as START
from harn.testing.clocks import HeldPool as HeldPool
from harn.testing.clocks import ThreadClock as ThreadClock
from harn.testing.kit import FakeInterpreter as FakeInterpreter
from harn.testing.kit import FakeInterpreters as FakeInterpreters
from harn.triggers.routing import Route


@implementer(IReceiver)
class FakeConnector:
    """Records the steps of its life, and does in each what its plugin is set to do."""

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
        """Accept every request."""

    def normalize(self, inbound: Any) -> Events:
        """Return one event."""
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
        """Return the one connector of a trigger that is not closed."""
        (found,) = [each for each in self.alive if each.context.binding.trigger_id == trigger_id]
        return found


@implementer(IRouteTable)
class FakeTable:
    """A route table; ``fails`` is raised by `build`, ``on_swap`` called by `swap`."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.on_swap: Callable[[], None] = lambda: None
        self.tree: Mapping[str, Route] = {}
        self.generation = 0

    def build(self, routes: Mapping[str, Route]) -> Any:
        """See `IRouteTable`."""
        if self.fails is not None:
            raise self.fails
        return dict(routes)

    def swap(self, tree: Any, generation: int) -> None:
        """See `IRouteTable`."""
        self.tree, self.generation = tree, generation
        self.on_swap()
