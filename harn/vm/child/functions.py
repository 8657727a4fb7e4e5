"""
The user's functions: those that the manifest names, ``module:function``, and the hooks of modules, found by their mark.

A name leads to a function that can be called, or to a flaw that says why not. The functions marked with ``on_start``
and ``on_stop`` are found in imported modules, and run at the server's request.
"""

from __future__ import annotations

import asyncio
import difflib
import errno
import inspect
import linecache
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, Protocol

from harn.vm.child.forks import end_copy
from harn.vm.child.threads import Threads
from harn.vm.child.tracebacks import one_line, user_frames, user_traceback
from harn.vm.frames import Flaw, HookFailure
from harn.vm.imports import Scope
from harn.vm.local_code import UnreadModule

START, STOP = "on_start", "on_stop"
ADVICE = "into a function marked with @harn.handlers.on_start, and is given back in one marked with @on_stop"
"""The advice where to open a port, a lock or a thread."""

_TAKEN = frozenset((errno.EADDRINUSE, errno.EBUSY, errno.EDEADLK))

TAKEN = (
    "a reload imports modules again while the previous interpreter still holds its resources, so a port, a lock or a "
    f"thread belongs {ADVICE}"
)
"""The hint for an import that fails because a resource is in use already."""


class UserFunction:
    """
    A user's function.

    :ivar wants_context: it accepts the context beside the event.
    :ivar is_async: calling it returns a coroutine.
    """

    __slots__ = ("call", "is_async", "wants_context")

    def __init__(self, call: Callable[..., Any], *, wants_context: bool, is_async: bool) -> None:
        self.call = call
        self.wants_context = wants_context
        self.is_async = is_async


class Unusable(Exception):
    """A reference that cannot be used; carries the flaw without the reference's name."""

    def __init__(self, message: str, hint: str = "", file: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.message, self.hint, self.file, self.line = message, hint, file, line

    def flaw(self, reference: str) -> Flaw:
        """Return the flaw of ``reference``."""
        return Flaw(reference, self.file, self.line, self.message, self.hint)


class ImportObserver(Protocol):
    """The part of `harn.vm.child.session.ChildSession` that `Functions` calls."""

    def import_begins(self, module: str) -> None:
        """Called with a module's name before its import begins."""


class Functions:
    """
    The functions of one bundle that have been looked up; each module is imported once, and its failure stored.

    :ivar imports: number of modules imported so far.
    """

    def __init__(self, scope: Scope, observer: ImportObserver) -> None:
        self.imports = 0
        self._scope = scope
        self._observer = observer
        self._modules: dict[str, ModuleType | Unusable] = {}
        self._found: dict[str, UserFunction] = {}

    def get(self, reference: str) -> UserFunction:
        """
        Look a function up.

        :raises Unusable: it is missing, or cannot be called with an event.
        """
        found = self._found.get(reference)
        if found is None:
            found = self._found[reference] = self._look_up(reference)
        return found

    def _look_up(self, reference: str) -> UserFunction:
        name, _, attribute = reference.partition(":")
        module = self._module(name)
        file = getattr(module, "__file__", None) or name
        try:
            value = _defined(module, attribute)
        except AttributeError:
            names = [each for each in vars(module) if callable(getattr(module, each, None))]
            close = difflib.get_close_matches(attribute, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"define it in {file}"
            raise Unusable(f"module {name!r} has no function {attribute!r}", hint, file) from None
        except BaseException as error:  # a __getattr__ of the user may do anything
            raise self._import_failed(name, error) from None
        return usable(value, attribute, file)

    def _module(self, name: str) -> ModuleType:
        module = self._modules.get(name)
        if module is None:
            self._observer.import_begins(name)
            self.imports += 1
            before = sys.modules.keys() | self._scope.guard.refused.keys()
            try:
                module = self._scope.import_module(name)
                unseen = self._scope.guard.unseen(before)
                if unseen is not None:
                    raise unseen
            except BaseException as error:  # sys.exit() in a module must not end the interpreter
                module = self._import_failed(name, error)
            self._modules[name] = module
        if isinstance(module, Unusable):
            raise module
        return module

    def _import_failed(self, name: str, error: BaseException) -> Unusable:
        file, line = name, None
        for file, line in user_frames(error.__traceback__, self._scope.paths):  # noqa: B007 - the innermost counts
            pass
        if isinstance(error, SyntaxError) and error.filename in self._scope.paths:
            file, line = error.filename or name, error.lineno
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = f"install it for {sys.executable}, or put its file next to the manifest"
        if _is_taken(error):
            text = linecache.getline(file, line).strip() if line is not None else ""
            said = f"module {name!r} cannot be imported: {one_line(error)}" + (f", in: {text}" if text else "")
            return Unusable(said, TAKEN, file, line)
        if isinstance(error, UnreadModule):
            return Unusable(f"module {name!r} cannot be imported: {error.message}", error.hint, file, line)
        return Unusable(f"module {name!r} cannot be imported: {one_line(error)}", hint, file, line)


def usable(value: Any, name: str, file: str) -> UserFunction:
    """
    Return a function as interpreters call it.

    :param file: where it is, for messages.
    :raises Unusable: it cannot be called with an event.
    """
    line = _line_of(value)
    if not callable(value):
        raise Unusable(f"{name!r} is a {type(value).__name__}, not a function", "name a function", file, line)
    capacity = _capacity(value, name, file, line)
    return UserFunction(value, wants_context=capacity > 1, is_async=_is_async(value))


def _defined(module: ModuleType, attribute: str) -> Any:
    """Return an attribute that the module's own code has defined or imported, not one of every module object."""
    names = vars(module)
    if attribute in names:
        return names[attribute]
    if attribute.startswith("__") or "__getattr__" not in names:
        raise AttributeError(attribute)
    return names["__getattr__"](attribute)


def _is_taken(error: BaseException | None) -> bool:
    """Return whether an import failed, directly or by its cause, because a resource is in use already."""
    for _ in range(10):
        if isinstance(error, BlockingIOError | TimeoutError) or (isinstance(error, OSError) and error.errno in _TAKEN):
            return True
        error = None if error is None else error.__cause__ or error.__context__
    return False


def _line_of(value: Any) -> int | None:
    code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
    return getattr(code, "co_firstlineno", None)


def _capacity(value: Any, name: str, file: str, line: int | None) -> int:
    """Return the number of positional arguments it accepts, at most 2; it must not require more."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (ValueError, TypeError):  # some builtins have no signature
        return 1
    required, capacity = 0, 0
    for each in parameters:
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            capacity += 1
            required += each.default is each.empty
        elif each.kind is each.VAR_POSITIONAL:
            capacity = max(capacity, 2)
        elif each.kind is each.KEYWORD_ONLY and each.default is each.empty:
            required = 3
    if required > 2 or capacity < 1:
        raise Unusable(f"{name!r} cannot be called with an event", f"write def {name}(event, context)", file, line)
    return min(capacity, 2)


def _is_async(value: Any) -> bool:
    return any(inspect.iscoroutinefunction(each) for each in _layers(value))


def _layers(value: Any) -> Iterator[Any]:
    while isinstance(value, partial):
        value = value.func
    yield value
    if not inspect.isroutine(value) and not inspect.isclass(value):
        yield type(value).__call__


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

    def _in_thread(self, threads: Threads, function: FunctionType) -> Future[Any]:
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
