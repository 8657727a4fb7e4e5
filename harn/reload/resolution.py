"""
Resolving: an interpreter in which every function of the manifest was found, fresh or carried over.

Interpreters are shared by bundle. One that runs this bundle already and has resolved these functions serves again;
else a fresh one, made from the warm spare, resolves them all. When only functions were added to an unchanged bundle,
the fresh one has done its duty then, and the live one with its caches and connections is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from harn.errors import ManifestInvalid
from harn.model.references import FunctionReference
from harn.reload.inputs import Inputs, locate
from harn.triggers.pool import KeyedPool, Shared
from harn.vm.bundle import Bundle
from harn.vm.child.functions import ADVICE
from harn.vm.interfaces import IInterpreter, IInterpreters
from harn.vm.sources import BundleProblem


class Resolution:
    """Finds or makes the interpreter for a bundle; owns the pool of those that serve."""

    def __init__(self, interpreters: IInterpreters) -> None:
        self._interpreters = interpreters
        self.pool: KeyedPool[IInterpreter] = KeyedPool(self._close)
        self._resolved: dict[str, frozenset[FunctionReference]] = {}
        self._importing: list[IInterpreter] = []

    def doing(self) -> str:
        """Return which module is being imported, and what to do if that does not end; empty when none is."""
        said = next(filter(None, (interpreter.importing() for interpreter in self._importing)), "")
        return f"{said}; what waits there for a port, a lock or a thread belongs {ADVICE}" if said else ""

    def all_up(self) -> bool:
        """Return whether no interpreter is being replaced after a death."""
        return all(shared.value.is_up() for shared in self.pool)

    async def _close(self, interpreter: IInterpreter) -> None:
        if not any(shared.key == interpreter.bundle_id for shared in self.pool):
            self._resolved.pop(interpreter.bundle_id, None)
        await interpreter.close()

    async def resolve(
        self, inputs: Inputs, stack: AsyncExitStack, *, afresh: bool, spare: bool = True
    ) -> Shared[IInterpreter]:
        """
        Return the interpreter for ``inputs``, held once by ``stack``.

        :param afresh: never take one that serves already.
        :param spare: a fresh one may use up the warm spare.
        :raises ManifestInvalid: of stage ``resolve``: functions that cannot be used, located in the manifest.
        """
        bundle, references = inputs.bundle, inputs.references
        shared = None if afresh else self.pool.acquire(bundle.bundle_id)
        if shared is not None:
            stack.callback(shared.release)
            if references <= self._resolved.get(bundle.bundle_id, frozenset()):
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

        :raises ManifestInvalid: its functions cannot be used any more.
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
        """Make an interpreter and resolve everything in it; close it if there are problems, or unless ``keep``."""
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
        self._resolved[bundle.bundle_id] = self._resolved.get(bundle.bundle_id, frozenset()) | frozenset(references)
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
        except CancelledError:  # by `close`, or with the reload's task: the adopted generation is still published
            return (CUT_OFF,)

    def close(self) -> None:
        """Stop waiting for functions that run."""
        self._running.cancel()
