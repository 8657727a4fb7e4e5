"""
The public names for authors of handlers.

A handler is called with the event, or with the event and a `Context`, and may be ``async def`` or ``def``; its return
value is the delivery's result and must be JSON. It can end an attempt early by raising `Reject` or `RetryAfter`.

Acquire what a module needs once and must release (a port, a lock, a thread, a pool of connections) in a function marked
`on_start`, and release it in one marked `on_stop`; never on import: a reload imports the new modules while the old ones
still serve, and so does a dry run, or a check.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from harn.model.event import TriggerEvent
from harn.model.response import Response
from harn.model.trace import NO_TRACE, TraceContext

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "Context",
    "Log",
    "Reject",
    "Response",
    "RetryAfter",
    "SecretMissing",
    "TraceContext",
    "TriggerEvent",
    "on_start",
    "on_stop",
]

Hook = TypeVar("Hook", bound=Callable[[], Any])

LONGEST_WAIT = 30 * 86400.0
"""Seconds: `RetryAfter` waits no longer than this."""


def on_start(function: Hook) -> Hook:
    """
    Run ``function`` in each interpreter that serves, before its first handler.

    That is after the reload, or start, that made the interpreter was adopted, and again in the process that replaces
    one that died. A reload that leaves all code unchanged keeps its interpreter, and runs nothing. Dry runs, checks,
    refused candidates and spare interpreters never run it.

    It takes no arguments, is defined at the top of a module, and may be ``async def`` or ``def``; several run in the
    order in which their modules were imported, and in a module from top to bottom. If it raises, or has not ended after
    30 s, that is logged as an error and is a warning of the reload, and handlers run all the same. An earlier
    interpreter that still finishes its calls may hold a resource that this function needs; then it is run again when
    that one has ended.
    """
    return _marked(function, "on_start")


def on_stop(function: Hook) -> Hook:
    """
    Run ``function`` before an interpreter ends whose `on_start` functions ran: after its last handler.

    It takes no arguments, and may be ``async def`` or ``def``; several run in the opposite order of `on_start`. They
    have 5 s together; exceptions are logged. A process that dies or is killed runs none.
    """
    return _marked(function, "on_stop")


def _marked(function: Hook, kind: str) -> Hook:
    from inspect import Parameter, isfunction, signature

    if not isfunction(function):
        raise TypeError(f"{kind} must mark a function at the top of a module, got {type(function).__name__}")
    for each in signature(function).parameters.values():
        if each.default is Parameter.empty and each.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            raise TypeError(f"{kind}: {function.__name__}() must take no arguments, got {each.name!r}")
    marks = function.__dict__
    marks["__harn_hooks__"] = (*marks.get("__harn_hooks__", ()), kind)
    return function


class Reject(Exception):
    """Raise it to make the delivery a dead letter immediately; no further attempt is made."""


class RetryAfter(Exception):
    """
    Raise it to end this attempt and set the time of the next one. It never counts as a failure of the handler's code.

    ::

        raise RetryAfter(30)
        raise RetryAfter(response.headers.get("Retry-After"))

    :ivar seconds: from now; at most 30 days. None: as the trigger's ``retry`` says.
    """

    def __init__(self, seconds: float | str | None, message: str = "") -> None:
        """
        Request another attempt.

        :param seconds: a number; or the text of a ``Retry-After`` header, which is seconds or a date (RFC 9110,
            10.2.3); or None, where there is no such header. Any other text is as None, and is named in the message.
        :param message: why; recorded with the attempt.
        :raises ValueError: ``seconds`` is a number that is negative, or not finite.
        """
        wait, unread = None if seconds is None else seconds, ""
        if isinstance(wait, str):
            wait = _wait_of_header(wait)
            unread = "" if wait is not None else f"; Retry-After must be seconds or a date, got {str(seconds)[:100]!r}"
        if wait is not None:
            wait = float(wait)
            if not math.isfinite(wait) or wait < 0:
                raise ValueError(f"RetryAfter: seconds must be a finite number >= 0, got {seconds!r}")
            wait = min(wait, LONGEST_WAIT)
        asked = "asked to be retried" if wait is None else f"asked to be retried after {wait:g} s"
        super().__init__((message or asked) + unread)
        self.seconds = wait


def _wait_of_header(text: str) -> float | None:
    """Return the seconds from now of a ``Retry-After`` header, 0 for a date that has passed; None for other text."""
    text = text.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), LONGEST_WAIT)
    if ":" not in text:
        return None
    from datetime import timezone
    from email.utils import parsedate_to_datetime
    from time import time

    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # RFC 9110: a date of HTTP is always in UTC
            date = date.replace(tzinfo=timezone.utc)
        return max(0.0, date.timestamp() - time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class SecretMissing(LookupError):
    """No provider has the secret that `Context.secret` was called for; the message says why."""


class AttemptServices(Protocol):
    """The part of a running attempt that its `Context` uses."""

    def log_record(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Log one record of this attempt."""

    def fetch_secret(self, reference: str) -> Future[str]:
        """Start to fetch a secret by its reference, from any thread; fails with `SecretMissing`."""


class Log:
    """A small logger: each record carries the delivery's ids automatically, and the fields passed to it."""

    __slots__ = ("_services",)

    def __init__(self, services: AttemptServices) -> None:
        """Pass every record to the attempt."""
        self._services = services

    def debug(self, message: object, **fields: Any) -> None:
        """Log at level ``debug``."""
        self._services.log_record("debug", str(message), fields)

    def info(self, message: object, **fields: Any) -> None:
        """Log at level ``info``."""
        self._services.log_record("info", str(message), fields)

    def warning(self, message: object, **fields: Any) -> None:
        """Log at level ``warn``."""
        self._services.log_record("warn", str(message), fields)

    def error(self, message: object, **fields: Any) -> None:
        """Log at level ``error``."""
        self._services.log_record("error", str(message), fields)


class Context:
    """
    The attempt that a handler runs in.

    :ivar binding: the binding version, for example ``gh@v2``.
    :ivar attempt: 1, 2, ...
    :ivar deadline: seconds, Unix; the handler is cancelled then.
    :ivar replay_of: id of the event that this delivery replays, or None.
    :ivar log: a small logger.
    :ivar trace: the `TraceContext` of this attempt: ``trace_id``, ``span_id``, ``traceparent``, and ``headers()`` for
        requests to other services. While the server makes no traces, that of the sender, so that it is passed on; where
        there is none, all of these are empty.
    """

    __slots__ = ("_services", "attempt", "binding", "deadline", "log", "replay_of", "trace", "trigger_id")

    def __init__(
        self,
        *,
        binding: str,
        trigger_id: str,
        attempt: int,
        deadline: float,
        replay_of: str | None,
        services: AttemptServices,
    ) -> None:
        """Describe an attempt, whose ``services`` log and fetch secrets."""
        self.binding = binding
        self.trigger_id = trigger_id
        self.attempt = attempt
        self.deadline = deadline
        self.replay_of = replay_of
        self.log = Log(services)
        self.trace: TraceContext = NO_TRACE
        self._services = services

    async def secret(self, reference: str) -> str:
        """
        Return a secret's value.

        :param reference: ``namespace/name``, for example ``github/token``.
        :raises SecretMissing: no provider of secrets has it.
        """
        from asyncio import wrap_future

        return await wrap_future(self._services.fetch_secret(reference))

    def secret_sync(self, reference: str) -> str:
        """
        Return a secret's value to a plain ``def`` handler, which cannot ``await``.

        :raises SecretMissing: no provider of secrets has it.
        :raises RuntimeError: called from a coroutine, whose loop it would block: ``await context.secret(...)`` there.
        """
        from asyncio import _get_running_loop

        if _get_running_loop() is not None:
            raise RuntimeError("context.secret_sync() would block the event loop; write: await context.secret(...)")
        return self._services.fetch_secret(reference).result()

    def __repr__(self) -> str:
        return f"<Context {self.binding} attempt {self.attempt}>"
