"""
The destinations of a generation's deliveries: an interpreter in which every function of the manifest was resolved, and
the destinations of other schemes. Generations share both.

Generations share interpreters by bundle. An interpreter that runs the bundle already and has resolved its functions is
used again; else a fresh one, made from the warm spare, resolves them all. If functions were only added to an unchanged
bundle, the fresh interpreter is closed after that, and the live one is kept with its caches and connections.

Other destinations are made for new targets. A local function needs no destination of its own: the interpreter in which
it was resolved is its destination.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.destinations.catalog import DestinationCatalog
from harn.destinations.interfaces import DestinationContext, IDestination
from harn.destinations.targets import LocalFunctions, Outside, OutsideTarget
from harn.errors import ManifestInvalid, StageFailed
from harn.model.references import LOCAL, FunctionReference, scheme_of
from harn.reload.inputs import Inputs, locate
from harn.triggers.binding import BindingVersion, Target
from harn.triggers.pool import KeyedPool, Shared
from harn.vm.bundle import Bundle
from harn.vm.child.functions import ADVICE
from harn.vm.interfaces import IInterpreter, IInterpreters, PendingImport
from harn.vm.sources import BundleProblem
from harn.waiting import ask

log = Logger(namespace="harn.reload")

WAITS = f"what waits there for a port, a lock or a thread belongs {ADVICE}"
"""The hint for an import that does not end."""


class InterpreterPool(KeyedPool[IInterpreter]):
    """
    The interpreters of generations, by the id of their bundle.

    :ivar resolved: the functions that were resolved in each bundle, by its id, as long as an interpreter runs it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.resolved: dict[str, frozenset[FunctionReference]] = {}

    async def close(self, value: IInterpreter) -> None:
        """Close an interpreter. If it was the last of its bundle, the bundle's functions are resolved again later."""
        if not any(shared.key == value.bundle_id for shared in self):
            self.resolved.pop(value.bundle_id, None)
        await value.close()


class Resolution:
    """Finds or makes the interpreter for a bundle; owns the pool of the interpreters in use."""

    def __init__(self, interpreters: IInterpreters) -> None:
        self._interpreters = interpreters
        self.pool = InterpreterPool()
        self._importing: list[IInterpreter] = []

    def doing(self) -> str:
        """Return a text with the module that is being imported, and a hint; empty if no import is under way."""
        said = self.importing()
        return f"{said}; {WAITS}" if said is not None else ""

    def importing(self) -> PendingImport | None:
        """Return the import that is under way; None if there is none."""
        return next(filter(None, (interpreter.importing() for interpreter in self._importing)), None)

    def all_up(self) -> bool:
        """Return whether all interpreters run; False while one that died is being replaced."""
        return all(shared.value.is_up() for shared in self.pool)

    async def resolve(
        self, inputs: Inputs, stack: AsyncExitStack, *, afresh: bool, spare: bool = True
    ) -> Shared[IInterpreter]:
        """
        Return the interpreter for ``inputs``; ``stack`` holds it once.

        :param afresh: if True, an interpreter that serves already is not used.
        :param spare: whether the warm spare may be used for a fresh interpreter.
        :raises ManifestInvalid: functions cannot be used (stage ``resolve``); each problem has its place in the
            manifest.
        """
        bundle, references = inputs.bundle, inputs.references
        shared = None if afresh else self.pool.acquire(bundle.bundle_id)
        if shared is not None:
            stack.callback(shared.release)
            if references <= self.pool.resolved.get(bundle.bundle_id, frozenset()):
                return shared
        fresh, problems = await self._fresh(bundle, references, keep=shared is None, spare=spare)
        if problems:
            raise ManifestInvalid(locate(inputs.loaded, problems), stage="resolve")
        if fresh is not None:
            stack.callback(fresh.release)
        serving = shared or fresh
        if serving is None:
            raise AssertionError("an interpreter without problems is kept unless another one serves")
        return serving

    async def revive(self, bundle: Bundle, references: frozenset[FunctionReference]) -> Shared[IInterpreter]:
        """
        Return an interpreter for an earlier bundle, held once for the caller.

        :raises ManifestInvalid: the functions of the bundle can no longer be used.
        """
        shared = self.pool.acquire(bundle.bundle_id)
        if shared is not None:
            return shared
        fresh, problems = await self._fresh(bundle, references, keep=True)
        if fresh is None:
            raise ManifestInvalid([problem.unlocated() for problem in problems], stage="resolve")
        return fresh

    async def _fresh(
        self, bundle: Bundle, references: Collection[FunctionReference], *, keep: bool, spare: bool = True
    ) -> tuple[Shared[IInterpreter] | None, Sequence[BundleProblem]]:
        """Make an interpreter and resolve every function in it; close it after problems, and if ``keep`` is False."""
        interpreter = await self._interpreters.create(bundle, spare=spare)
        self._importing.append(interpreter)
        try:
            problems = await interpreter.resolve(references)
        except BaseException:
            await interpreter.close()
            raise
        finally:
            self._importing.remove(interpreter)
        if problems or not keep:
            await interpreter.close()
        if problems:
            return None, problems
        known = self.pool.resolved.get(bundle.bundle_id, frozenset())
        self.pool.resolved[bundle.bundle_id] = known | frozenset(references)
        return (self.pool.add(bundle.bundle_id, interpreter) if keep else None), ()


CUT_OFF = "the server ends, and its on_start functions have not ended"


class StartHooks:
    """Runs the ``on_start`` functions of each generation, one generation after the other."""

    def __init__(self) -> None:
        self._running: Deferred[Any] = succeed(())

    async def run(self, interpreter: IInterpreter) -> Sequence[str]:
        """Run the functions of an interpreter; return the failures, or `CUT_OFF` if `close` came before the end."""
        running = self._running = interpreter.serve()
        try:
            return await running
        except CancelledError:  # by `close` or with the reload's task; the adopted generation is still published
            return (CUT_OFF,)

    def close(self) -> None:
        """Stop waiting for the functions that run."""
        self._running.cancel()


CLOSING = 5.0
"""Seconds after which a destination that is being closed is no longer waited for."""


class FreshVersions(Struct, frozen=True):
    """
    The new binding versions of a candidate, which do not hold their destinations so far.

    :ivar local: the number of new versions that run local functions; their destination is set.
    :ivar outside: the new versions whose handler is not a local function.
    """

    local: int
    outside: tuple[BindingVersion, ...]


class GenerationTargets(Struct, frozen=True, eq=False):
    """
    The destinations of the deliveries of one generation.

    :ivar functions: the destination of local functions.
    :ivar outside: the destination of every other handler, by its text in the manifest; the generation holds each once.
    """

    functions: LocalFunctions
    outside: Mapping[str, Shared[Outside]]

    def hold(self, binding: BindingVersion) -> Target:
        """Return the destination of a version that runs in this generation, held once more for the version."""
        found = self.outside.get(binding.spec.handler)
        if found is None:
            return self.functions.retain()
        return hold_outside(found, None if binding.predicate is None else self.functions.interpreter)

    def assign(self, bindings: Iterable[BindingVersion]) -> FreshVersions:
        """
        Set the destinations of new versions without holding them, since the versions may never be adopted.

        May be called in a thread.
        """
        local = 0
        outside: list[BindingVersion] = []
        for binding in bindings:
            if binding.spec.handler in self.outside:
                outside.append(binding)
            else:
                binding.destination = self.functions
                local += 1
        return FreshVersions(local, tuple(outside))

    def hold_all(self, fresh: FreshVersions) -> None:
        """Hold the destinations of new versions. Called when they are adopted."""
        self.functions.interpreter.retain(fresh.local)
        for binding in fresh.outside:
            binding.destination = self.hold(binding)

    def release(self) -> None:
        """Release the destinations that the generation holds, but not its interpreter."""
        for shared in self.outside.values():
            shared.release()


def hold_outside(outside: Shared[Outside], interpreter: Shared[IInterpreter] | None) -> OutsideTarget:
    """Hold a plugin's destination once more, and the interpreter of the predicate, if the version has a predicate."""
    return OutsideTarget(outside, interpreter).retain()


class OutsidePool(KeyedPool[Outside]):
    """
    The destinations of plugins, by target.

    :param reactor: an `IReactorTime`.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor

    async def close(self, value: Outside) -> None:
        """Close a destination once, within `CLOSING` seconds. A failure to close is logged."""
        if value.is_closed:
            return
        value.is_closed = True
        try:
            (outcome,) = await ask(lambda: value.destination.close()).addTimeout(CLOSING, self._reactor)
        except TimeoutError:
            log.error("destination {target} did not close in {seconds} s", target=value.target, seconds=CLOSING)
            return
        if isinstance(outcome, Failure):
            log.failure("destination {target} failed to close", outcome, target=value.target)


class Targets:
    """
    Makes, prepares and ends the destinations of plugins; owns the pool of the destinations in use.

    :param reactor: an `IReactorTime`.
    """

    def __init__(self, reactor: Any, catalog: DestinationCatalog) -> None:
        self._reactor = reactor
        self.catalog = catalog
        self.pool = OutsidePool(reactor)

    async def prepare(
        self,
        users: Mapping[str, str],
        inputs: Inputs,
        interpreter: Shared[IInterpreter],
        stack: AsyncExitStack,
    ) -> GenerationTargets:
        """
        Return the destinations of a manifest; ``stack`` holds each destination of a plugin once.

        :param users: the first trigger that names each handler which is not a local function, by handler.
        :raises StageFailed: a destination refused (stage ``prepare``); the problem names its triggers.
        """
        outside: dict[str, Shared[Outside]] = {}
        for target, trigger_id in users.items():
            try:
                outside[target] = await self.acquire(target)
            except StageFailed as error:
                problem = inputs.loaded.problem(trigger_id, "handler", str(error))
                raise StageFailed("prepare", str(error), [problem]) from error
            stack.callback(outside[target].release)
        local = self.catalog.plugin(LOCAL)
        context = DestinationContext(target=LOCAL, reactor=self._reactor, interpreter=interpreter)
        functions = local.destination(context)
        assert isinstance(functions, LocalFunctions)
        return GenerationTargets(functions, outside)

    async def acquire(self, target: str) -> Shared[Outside]:
        """
        Return the prepared destination of a target that is not local, held once for the caller.

        :raises StageFailed: the plugin is no longer installed, or refused (stage ``prepare``).
        """
        shared = self.pool.acquire(target)
        if shared is not None:
            return shared
        try:
            plugin = self.catalog.plugin(scheme_of(target))
        except KeyError:
            raise StageFailed("prepare", f"no destination {scheme_of(target)}:// is installed any more") from None

        def make() -> IDestination:
            made = plugin.destination(DestinationContext(target=target, reactor=self._reactor))
            if not IDestination.providedBy(made):
                raise TypeError(f"its plugin must make an IDestination, got {made!r}")
            return made

        outside = Outside(target, await self._result(target, ask(make)), self._reactor)
        shared = self.pool.add(target, outside)
        try:
            await self._result(target, ask(lambda: outside.destination.prepare()))
        except BaseException:
            shared.release()
            raise
        return shared

    async def hold(self, binding: BindingVersion, interpreter: Shared[IInterpreter]) -> Target:
        """
        Return the destination of an earlier version, held once for the version.

        :raises StageFailed: the destination cannot be prepared (stage ``prepare``).
        """
        handler = binding.spec.handler
        if scheme_of(handler) == LOCAL:
            return LocalFunctions(interpreter).retain()
        shared = await self.acquire(handler)
        target = hold_outside(shared, None if binding.predicate is None else interpreter)
        shared.release()
        return target

    async def close(self) -> None:
        """Close every destination, even if it is held. Called when the server ends and begins no further delivery."""
        for shared in self.pool:
            await self.pool.close(shared.value)
        await self.pool.idle()

    async def _result(self, target: str, asked: Deferred[tuple[Any]]) -> Any:
        """
        Return the result of a plugin that was called with `ask`.

        :raises StageFailed: the plugin raised an exception of any class.
        """
        (outcome,) = await asked
        if not isinstance(outcome, Failure):
            return outcome
        error = outcome.value
        if isinstance(error, StageFailed | ManifestInvalid):
            message = str(error)
        else:
            log.failure("destination {target} failed to prepare", outcome, target=target)
            message = f"{type(error).__name__}: {error}"
        raise StageFailed("prepare", f"destination {target} failed to prepare: {message}")
