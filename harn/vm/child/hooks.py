"""
The functions marked with ``on_start`` and ``on_stop``: found in imported modules, run at the server's request.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from types import FunctionType
from typing import Any

from harn.vm.child.forks import end_copy
from harn.vm.child.threads import Threads
from harn.vm.child.tracebacks import one_line, user_frames, user_traceback
from harn.vm.frames import HookFailure
from harn.vm.imports import Scope

START, STOP = "on_start", "on_stop"
ADVICE = "into a function marked with @harn.handlers.on_start, and is given back in one marked with @on_stop"
"""The advice where to open a port, a lock or a thread."""


class ModuleHooks:
    """
    The hooks of one interpreter. Belongs to the loop's thread.

    :param threads: threads for plain functions; None: run them on the loop.
    """

    def __init__(self, loop: AbstractEventLoop, threads: Threads | None, scope: Scope) -> None:
        self._loop = loop
        self._threads = threads
        self._scope = scope
        self._started: list[FunctionType] = []
        self._running = asyncio.Lock()
        self._began = False

    def exist(self) -> bool:
        """Return whether there is anything to run, now or at the end."""
        return bool(self._find(START) or self._find(STOP))

    def late(self) -> bool:
        """Return whether a module that was imported after the start has functions that have not run yet."""
        return self._began and any(each not in self._started for each in self._find(START))

    async def run(self, kind: str, limit: float) -> list[HookFailure]:
        """Run the pending hooks one after the other, within ``limit`` seconds; return the failures."""
        async with self._running:
            ends_at = self._loop.time() + limit
            if kind == START:
                self._began = True
                wanted = [each for each in self._find(START) if each not in self._started]
            else:
                wanted = self._find(STOP)[::-1]
            failures = []
            for function in wanted:
                try:
                    await asyncio.wait_for(self._call(function), max(0.0, ends_at - self._loop.time()))
                except TimeoutError as error:
                    failures.append(self._failed(function, error, f"it did not end within {limit:g} s"))
                except BaseException as error:  # sys.exit() in it must not end the interpreter
                    failures.append(self._failed(function, error, one_line(error)))
                else:
                    self._started.extend([function] if kind == START else [])
            return failures

    def _find(self, kind: str) -> list[FunctionType]:
        found: dict[FunctionType, None] = {}
        for module in self._scope.imported():
            for value in tuple(vars(module).values()):
                if isinstance(value, FunctionType) and kind in value.__dict__.get("__harn_hooks__", ()):
                    found.setdefault(value)
        return list(found)

    async def _call(self, function: FunctionType) -> None:
        if self._threads is None or asyncio.iscoroutinefunction(function):
            result = function()
        else:
            result = await asyncio.wrap_future(self._in_thread(self._threads, function))
        if hasattr(result, "__await__"):
            await result

    def _in_thread(self, threads: Threads, function: Callable[[], Any]) -> Future[Any]:
        done: Future[Any] = Future()
        context = copy_context()

        def job(_: bool) -> None:
            try:
                result = context.run(function)
                end_copy()
            except BaseException as error:
                end_copy(error)
                # StopIteration cannot pass through a future.
                failure = RuntimeError(one_line(error)) if isinstance(error, StopIteration) else error
                if done.set_running_or_notify_cancel():
                    done.set_exception(failure)
            else:
                if done.set_running_or_notify_cancel():
                    done.set_result(result)

        threads.submit(job)
        return done

    def _failed(self, function: FunctionType, error: BaseException, message: str) -> HookFailure:
        code = function.__code__
        where = f"{code.co_filename}:{code.co_firstlineno}"
        for file, line in user_frames(error.__traceback__, self._scope.paths):
            where = f"{file}:{line}"
        name = f"{self._scope.local_name(function.__module__)}:{function.__name__}"
        return HookFailure(name, message, where, user_traceback(error, self._scope.paths))
