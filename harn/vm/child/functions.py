"""Lookup of ``module:function``: a function that can be called, or a flaw that says why not."""

from __future__ import annotations

import difflib
import errno
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

from harn.vm.child.hooks import ADVICE
from harn.vm.child.tracebacks import one_line, user_frames
from harn.vm.frames import Flaw
from harn.vm.import_guard import UnreadModule
from harn.vm.imports import Scope

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


class Functions:
    """
    The functions of one bundle that have been looked up; each module is imported once, and its failure stored.

    :ivar importing: called with a module's name before its import begins.
    :ivar imports: number of modules imported so far.
    """

    def __init__(self, scope: Scope, importing: Callable[[str], None]) -> None:
        self.imports = 0
        self._scope = scope
        self._importing = importing
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
        line = _line_of(value)
        if not callable(value):
            raise Unusable(f"{attribute!r} is a {type(value).__name__}, not a function", "name a function", file, line)
        capacity = _capacity(value, attribute, file, line)
        return UserFunction(value, wants_context=capacity > 1, is_async=_is_async(value))

    def _module(self, name: str) -> ModuleType:
        module = self._modules.get(name)
        if module is None:
            self._importing(name)
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


def _capacity(value: Callable[..., Any], name: str, file: str, line: int | None) -> int:
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


def _is_async(value: Callable[..., Any]) -> bool:
    return any(inspect.iscoroutinefunction(each) for each in _layers(value))


def _layers(value: Any) -> Iterator[Any]:
    while isinstance(value, partial):
        value = value.func
    yield value
    if not inspect.isroutine(value) and not inspect.isclass(value):
        yield type(value).__call__
