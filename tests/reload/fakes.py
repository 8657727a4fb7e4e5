"""Stand-ins that do as they are told: time, threads, interpreters, a connector, a route table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.connectors.interfaces import PUBLIC, IConnectorPlugin, IReceiver
from harn.connectors.model import ConnectorContext, Events, NormalizedEvent
from harn.model.references import FunctionReference
from harn.reload.interfaces import IRouteTable
from harn.triggers.route import Route
from harn.vm.bundle import Bundle
from harn.vm.interfaces import IInterpreters
from harn.vm.model import Call, Returned
from harn.vm.sources import BundleProblem
from tests.dispatch.world import ScriptedInterpreter

START = 1_700_000_000.0


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

    def call(self, call: Call, *, alone: bool = False) -> Deferred[Returned]:
        """Begin a call; tell who wants to know first."""
        if self._maker.on_call is not None:
            self._maker.on_call(self, call)
        return super().call(call, alone=alone)

    def close(self) -> Deferred[None]:
        """Refuse further calls."""
        self._maker.alive.discard(self)
        return super().close()


@implementer(IInterpreters)
class FakeInterpreters:
    """
    :ivar on_resolve: what `FakeInterpreter.resolve` gives instead of looking. ``on_call`` is told of each call.
    :ivar alive: those that are not closed.
    """

    def __init__(self) -> None:
        self.on_resolve: Callable[[], Deferred[Any]] | None = None
        self.on_create: Callable[[], Deferred[Any]] | None = None
        self.on_call: Callable[[FakeInterpreter, Call], None] | None = None
        self.alive: set[FakeInterpreter] = set()
        self.made: list[FakeInterpreter] = []

    def try_hooks_again(self) -> None:
        """See `IInterpreters`."""

    def create(self, bundle: Bundle, *, spare: bool = True) -> Deferred[Any]:
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
