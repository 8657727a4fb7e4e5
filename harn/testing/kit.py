"""
A server in the test's own process: the product's features over a store in memory, scripted interpreters and a clock.

A test makes a `KitServer` and installs the features that it needs, as `harn.orchestrator.features` does; it adds
the objects that those look for, and that it wants to see or to break, to the server first. Each call of a handler runs
until the test ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from zope.interface import implementer

from harn.errors import CallInterrupted
from harn.lifecycle import Lifecycle
from harn.model.exchange import Endings, Returned, Running
from harn.model.references import FunctionReference
from harn.observability.subscribers import Counting
from harn.options import ServeOptions
from harn.server import Runtime, Server
from harn.testing.clocks import SteppedWall
from harn.testing.stores.pumped import PumpedStore
from harn.vm.bundle import Bundle
from harn.vm.interfaces import Call, IInterpreter, IInterpreters
from harn.vm.sources import BundleProblem


class FullDelays(Random):
    """Draws 0 each time: jitter shortens no delay."""

    def random(self) -> float:
        """Return 0."""
        return 0.0


@define(eq=False)
class ScriptedCall:
    """A call that an interpreter was asked for, to be ended by the test."""

    call: Call
    alone: bool
    interpreter: ScriptedInterpreter
    attempt: Any
    endings: Endings
    on_cancel: Callable[[], object] = field(default=lambda: None)

    def cancel(self) -> None:
        """End it as cancelled, unless it has ended, or ``on_cancel`` ends it otherwise at that moment."""
        if self in self.interpreter.calls:
            self.on_cancel()
            if self in self.interpreter.calls:
                self.raises(CancelledError())

    def returns(self, result: bytes | None = b"null") -> None:
        """End it with a result; None for a predicate that said no."""
        self._end(Returned(result))

    def raises(self, error: Exception) -> None:
        """End it with an error."""
        self._end(error)

    def _end(self, outcome: Returned | Exception) -> None:
        self.interpreter.calls.remove(self)
        self.endings.ended([(self.attempt, outcome)])


@implementer(IInterpreter)
class ScriptedInterpreter:
    """Keeps its calls until the test ends them."""

    def __init__(self, bundle_id: str = "sha256:bundle") -> None:
        self.bundle_id = bundle_id
        self.calls: list[ScriptedCall] = []
        self.closed = self.served = 0
        self.hook_failures: tuple[str, ...] = ()

    @property
    def running(self) -> int:
        """The number of calls that run."""
        return len(self.calls)

    def resolve(self, references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """Find every function."""
        return succeed([])

    def begin(self, call: Call, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """Begin a call."""
        running = ScriptedCall(call, alone, self, attempt, endings)
        self.calls.append(running)
        if self.closed:
            running.raises(CallInterrupted("it is closed", suspect=False))
        return running

    def serve(self) -> Deferred[Sequence[str]]:
        """Count the calls of this method; there are no hooks."""
        self.served += 1
        return succeed(self.hook_failures)

    def importing(self) -> None:
        """Return that nothing is being imported."""

    def is_up(self) -> bool:
        """Return whether it is not closed."""
        return not self.closed

    def close(self) -> Deferred[None]:
        """Refuse further calls."""
        self.closed += 1
        return succeed(None)


class FakeInterpreter(ScriptedInterpreter):
    """Resolves as its maker's ``on_resolve`` says, and keeps its calls until the test ends them."""

    def __init__(self, maker: FakeInterpreters, bundle: Bundle) -> None:
        super().__init__(bundle.bundle_id)
        self.bundle = bundle
        self._maker = maker

    def resolve(self, references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """Find each function whose ``def`` is in the source, unless the maker has an ``on_resolve``."""
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

    def begin(self, call: Call, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """Begin a call, after the maker's ``on_call``."""
        if self._maker.on_call is not None:
            self._maker.on_call(self, call)
        return super().begin(call, attempt, endings, alone=alone)

    def close(self) -> Deferred[None]:
        """Refuse further calls."""
        self._maker.alive.discard(self)
        return super().close()


@implementer(IInterpreters)
class FakeInterpreters(Service):
    """
    Makes `FakeInterpreter` objects.

    :ivar on_resolve: replaces `FakeInterpreter.resolve`; ``on_create`` replaces `create`. ``on_call`` is called with
        each interpreter and call.
    :ivar exchanges: how often answers were looked for in a turn that went on.
    :ivar alive: the interpreters that are not closed.
    """

    def __init__(self) -> None:
        self.on_resolve: Callable[[], Deferred[Any]] | None = None
        self.on_create: Callable[[], Deferred[Any]] | None = None
        self.on_call: Callable[[FakeInterpreter, Call], None] | None = None
        self.exchanges = 0
        self.alive: set[FakeInterpreter] = set()
        self.made: list[FakeInterpreter] = []

    def exchange(self) -> None:
        """Count the calls of this method: a call that ends is reported at once."""
        self.exchanges += 1

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


OPTIONS = ServeOptions(manifest="", manifest_name="", state_dir="", host="", port=0)


class KitServer(Server):
    """
    A server without features.

    :param clock: drives everything, as the reactor does.
    :param store: an earlier one that was closed, for a server after a restart; it is opened again.
    """

    store: PumpedStore
    interpreters: FakeInterpreters
    wall: SteppedWall

    def __init__(
        self,
        clock: Any,
        *,
        options: ServeOptions = OPTIONS,
        environ: Mapping[str, str] = {},
        store: PumpedStore | None = None,
    ) -> None:
        wall = SteppedWall(clock)
        if store is None:
            store = PumpedStore(wall)
        store.open()
        runtime = Runtime(clock, wall, random=FullDelays())
        super().__init__(runtime, options, environ, Lifecycle(), store, FakeInterpreters())
        Counting(self.metrics, self.lifecycle)
