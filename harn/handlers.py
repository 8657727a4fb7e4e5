"""
What the author of handlers needs, in one place.

A handler takes the event, or the event and a `Context`, and may be ``async def`` or ``def``; what it returns is the
delivery's result and must be JSON. It ends an attempt in its own way by raising `Reject` or `RetryAfter`.

What a module must take once and give back (a port, a lock, a thread, a pool of connections) it takes in a function
marked `on_start`, and gives back in one marked `on_stop`, never when it is imported: a reload imports the new modules
while the old ones still serve, and so does a dry run, or a check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from harn.model.event import TriggerEvent

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Context", "Log", "Reject", "RetryAfter", "SecretMissing", "TriggerEvent", "on_start", "on_stop"]

Hook = TypeVar("Hook", bound=Callable[[], Any])

LONGEST_WAIT = 30 * 86400.0
"""Seconds: `RetryAfter` waits no longer than this."""


def on_start(function: Hook) -> Hook:
    """
    Run ``function`` in each interpreter that serves, before its first handler.

    That is after the reload, or start, that made it was adopted, and again in the process that replaces one that died.
    A reload that leaves all code as it was keeps its interpreter, and runs nothing. Dry runs, checks, candidates that
    are turned away and interpreters in waiting never run it.

    It takes no arguments, stands at the top of a module, and may be ``async def`` or ``def``; several run in the order
    in which their modules were imported, and in a module from top to bottom. If it raises, or has not ended after 30 s,
    that is logged as an error and is a warning of the reload, and handlers run all the same. An interpreter before it
    that still finishes what it has may hold what this function wants; then it is run again when that one has ended.
    """
    return _marked(function, "on_start")


def on_stop(function: Hook) -> Hook:
    """
    Run ``function`` before an interpreter ends whose `on_start` functions ran: after its last handler.

    It takes no arguments, and may be ``async def`` or ``def``; several run in the opposite order of `on_start`. They
    have 5 s together; what they raise is logged. A process that dies or is killed runs none.
    """
    return _marked(function, "on_stop")


def _marked(function: Hook, kind: str) -> Hook:
    from inspect import Parameter, isfunction, signature

    if not isfunction(function):
        raise TypeError(f"{kind} marks a function at the top of a module, not {type(function).__name__}")
    for each in signature(function).parameters.values():
        if each.default is Parameter.empty and each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            raise TypeError(f"{kind}: {function.__name__}() must take no arguments, got {each.name!r}")
    marks = function.__dict__
    marks["__harn_hooks__"] = (*marks.get("__harn_hooks__", ()), kind)
    return function


class Reject(Exception):
    """Raise it to send the delivery to the dead letters at once; no further attempt is made."""


class RetryAfter(Exception):
    """
    Raise it to end this attempt and set the next one's time.

    :ivar seconds: from now; at most 30 days.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        """
        Ask for another attempt.

        :param message: why; recorded with the attempt.
        :raises ValueError: ``seconds`` is negative, or no finite number.
        """
        wait = float(seconds)
        if not math.isfinite(wait) or wait < 0:
            raise ValueError(f"RetryAfter({seconds!r}): give seconds, 0 or more")
        super().__init__(message or f"asked to be retried after {wait:g} s")
        self.seconds = min(wait, LONGEST_WAIT)


class SecretMissing(LookupError):
    """The secret that `Context.secret` was asked for cannot be had; the message says why."""


class Log:
    """A small logger: each record carries the delivery's ids by itself, and the fields given."""

    __slots__ = ("_emit",)

    def __init__(self, emit: Callable[[str, str, dict[str, Any]], None]) -> None:
        """Give every record to ``emit`` as level, message and fields."""
        self._emit = emit

    def debug(self, message: object, **fields: Any) -> None:
        """Log at level ``debug``."""
        self._emit("debug", str(message), fields)

    def info(self, message: object, **fields: Any) -> None:
        """Log at level ``info``."""
        self._emit("info", str(message), fields)

    def warning(self, message: object, **fields: Any) -> None:
        """Log at level ``warn``."""
        self._emit("warn", str(message), fields)

    def error(self, message: object, **fields: Any) -> None:
        """Log at level ``error``."""
        self._emit("error", str(message), fields)


class Context:
    """
    What a handler may know of the attempt that it is.

    :ivar binding: the binding version, for example ``gh@v2``.
    :ivar attempt: 1, 2, ...
    :ivar deadline: seconds, Unix; the handler is cancelled then.
    :ivar replay_of: id of the event that this delivery repeats, or None.
    :ivar log: a small logger.
    """

    __slots__ = ("_ask", "attempt", "binding", "deadline", "log", "replay_of", "trigger_id")

    def __init__(
        self,
        *,
        binding: str,
        trigger_id: str,
        attempt: int,
        deadline: float,
        replay_of: str | None,
        log: Log,
        ask: Callable[[str], Future[str]],
    ) -> None:
        """
        Describe an attempt.

        :param ask: begins to fetch a secret by its reference, from any thread.
        """
        self.binding = binding
        self.trigger_id = trigger_id
        self.attempt = attempt
        self.deadline = deadline
        self.replay_of = replay_of
        self.log = log
        self._ask = ask

    async def secret(self, reference: str) -> str:
        """
        Give a secret's value.

        :param reference: ``namespace/name``, for example ``github/token``.
        :raises SecretMissing: no provider of secrets knows it.
        """
        from asyncio import wrap_future

        return await wrap_future(self._ask(reference))

    def secret_sync(self, reference: str) -> str:
        """
        Give a secret's value to a plain ``def`` handler, which cannot ``await``.

        :raises SecretMissing: no provider of secrets knows it.
        :raises RuntimeError: called from a coroutine, whose loop it would block: ``await context.secret(...)`` there.
        """
        from asyncio import _get_running_loop

        if _get_running_loop() is not None:
            raise RuntimeError("context.secret_sync() would block the event loop; write: await context.secret(...)")
        return self._ask(reference).result()

    def __repr__(self) -> str:
        return f"<Context {self.binding} attempt {self.attempt}>"
