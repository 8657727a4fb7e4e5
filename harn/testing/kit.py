"""
A server in the test's own process: the product's features over a store in memory, scripted interpreters and a clock.

A test makes a `KitServer` and installs the features that it needs, as `harn.orchestrator.features` does; it adds
the objects that those look for, and that it wants to see or to break, to the server first. Each call of a handler runs
until the test ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, Protocol

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
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
    """
    A call that an interpreter was asked for, to be ended by the test.

    :ivar cancelled: the outcome with which it ends when it is cancelled.
    """

    call: Call
    alone: bool
    interpreter: ScriptedInterpreter
    attempt: Any
    endings: Endings
    cancelled: Returned | Exception = field(factory=CancelledError)

    def cancel(self) -> None:
        """End it as ``cancelled`` says, unless it has ended."""
        if self in self.interpreter.calls:
            self._end(self.cancelled)

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


class CallWatcher(Protocol):
    """Sees the calls of fake interpreters."""

    def call_begins(self, interpreter: FakeInterpreter, call: Call) -> None:
        """Called before each call begins."""


class FakeInterpreter(ScriptedInterpreter):
    """Resolves by its bundle, or as its maker's ``resolutions`` say, and keeps its calls until the test ends them."""

    def __init__(self, maker: FakeInterpreters, bundle: Bundle) -> None:
        super().__init__(bundle.bundle_id)
        self.bundle = bundle
        self._maker = maker

    def resolve(self, references: Collection[FunctionReference]) -> Deferred[Sequence[BundleProblem]]:
        """Find each function whose ``def`` is in the source, unless the maker has ``resolutions``."""
        resolutions = self._maker.resolutions
        if resolutions is not None:
            return resolutions.pop(0) if resolutions else Deferred()
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
        """Begin a call."""
        if self._maker.watcher is not None:
            self._maker.watcher.call_begins(self, call)
        return super().begin(call, attempt, endings, alone=alone)

    def close(self) -> Deferred[None]:
        """Refuse further calls."""
        self._maker.alive.discard(self)
        return super().close()


@implementer(IInterpreters)
class FakeInterpreters(Service):
    """
    Makes `FakeInterpreter` objects.

    :ivar resolutions: what the next calls of `FakeInterpreter.resolve` return, in order; those after them never end.
        None: each resolves by its bundle.
    :ivar creation_error: `create` fails with it; None: it succeeds.
    :ivar watcher: sees each call.
    :ivar exchanges: how often answers were looked for in a turn that went on.
    :ivar alive: the interpreters that are not closed.
    """

    def __init__(self) -> None:
        self.resolutions: list[Deferred[Any]] | None = None
        self.creation_error: Exception | None = None
        self.watcher: CallWatcher | None = None
        self.exchanges = 0
        self.alive: set[FakeInterpreter] = set()
        self.made: list[FakeInterpreter] = []

    def exchange(self) -> None:
        """Count the calls of this method: a call that ends is reported immediately."""
        self.exchanges += 1

    def try_hooks_again(self) -> None:
        """See `IInterpreters`."""

    def create(self, bundle: Bundle, *, spare: bool = True) -> Deferred[Any]:
        """See `IInterpreters`."""
        if self.creation_error is not None:
            return fail(self.creation_error)
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
