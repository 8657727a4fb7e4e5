"""
The kit for authors of handlers: events as a server makes them, and handlers called as a server calls them.

::

    from harn.testing.handlers import github, run_handler

    run = run_handler("handlers:on_issue", github("issues.opened"), secrets={"github/token": "t"}, attempt=2)
    assert run.outcome == "success" and run.result == {"title": "..."}

It runs in the process of the test, with unittest, pytest or trial, whether the handler is ``async`` or not.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
from msgspec import Struct, field

from harn.errors import AttemptFailed, HandlerRetryAfter
from harn.handlers import Context, Reject, RetryAfter, SecretMissing, TriggerEvent
from harn.model.event import read_fixture
from harn.model.references import parse_secret_reference
from harn.model.trace import TRACESTATE, parse_traceparent, passed_on
from harn.testing.events import (
    bitbucket,
    cloudevents,
    discord,
    example,
    forgejo,
    gitea,
    github,
    gitlab,
    linear,
    notion,
    pagerduty,
    polled,
    sendgrid,
    sentry,
    shopify,
    slack,
    standard,
    stripe,
    tick,
    twilio,
    webhook,
    zendesk,
)
from harn.testing.functions import Function, function_of
from harn.vm.calls import error_of
from harn.vm.child.calls import encode_result, wait_of
from harn.vm.child.functions import UserFunction
from harn.vm.child.tracebacks import message_of, one_line
from harn.vm.frames import PREDICATE_RAISED, RAISED, REJECTED, RETRY_AFTER, TIMED_OUT, Failed

__all__ = [
    "HandlerRun",
    "LoggedRecord",
    "bitbucket",
    "cloudevents",
    "discord",
    "example",
    "forgejo",
    "gitea",
    "github",
    "gitlab",
    "linear",
    "load_fixture",
    "notion",
    "pagerduty",
    "polled",
    "run_handler",
    "sendgrid",
    "sentry",
    "shopify",
    "slack",
    "standard",
    "stripe",
    "tick",
    "twilio",
    "webhook",
    "zendesk",
]

SUCCESS, SKIPPED = "success", "skipped"
"""Outcomes of an attempt that did not fail; others are ``failed``, ``timeout`` and ``denied``."""


class LoggedRecord(Struct, frozen=True):
    """A record that a handler logged through ``context.log``."""

    level: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class HandlerRun(Struct, frozen=True, kw_only=True):
    """
    One attempt of a handler, in the words in which a server records it.

    :ivar outcome: ``success``, ``skipped`` (by the predicate), ``failed``, ``timeout`` or ``denied`` (by `Reject`).
    :ivar result: of a success: the result, as it is after a way through JSON.
    :ivar error_class: of a failure, for example ``handler_error``, ``rejected``, ``retry_after``, ``result_invalid``.
    :ivar error: of a failure: ``Type: message``.
    :ivar exception: what was raised, with its traceback; None where nothing was.
    :ivar retry_after: seconds that a `RetryAfter` asks for; None for any other, or as the trigger's ``retry`` says.
    :ivar log: what was logged through ``context.log``, in order.
    :ivar seconds: that it took.
    """

    outcome: str
    result: Any = None
    error_class: str | None = None
    error: str | None = None
    exception: BaseException | None = None
    retry_after: float | None = None
    log: tuple[LoggedRecord, ...] = ()
    seconds: float


def load_fixture(path: str | os.PathLike[str]) -> TriggerEvent:
    """
    Read an event from a file that ``harn orchestrator export`` has written.

    :raises ValueError: it is not a fixture; says what is wrong.
    :raises OSError: it cannot be read.
    """
    with open(path, encoding="utf-8") as file:
        try:
            return read_fixture(json.load(file)).event()
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: not a fixture: {error}") from error


class DeliveryContext(Struct, frozen=True, kw_only=True):
    """
    The delivery of an attempt, as `harn.handlers.Context` describes it.

    :ivar replay_of: id of the event that it replays, or None.
    :ivar traceparent: of ``context.trace``; empty for that of the event's own headers, as while traces are off.
    """

    trigger_id: str = "test"
    replay_of: str | None = None
    traceparent: str = ""


OF_A_TEST = DeliveryContext()
"""What a handler sees when a test gives no other."""


def run_handler(
    handler: Function,
    event: TriggerEvent,
    *,
    when: Function | None = None,
    attempt: int = 1,
    timeout: float = 30.0,
    secrets: Mapping[str, str] = {},
    delivery: DeliveryContext = OF_A_TEST,
) -> HandlerRun:
    """
    Run one attempt of a handler, and return how it ended. What the handler raises is in the answer, and not raised.

    :param handler: ``module:function`` as in a manifest, imported as tests import it; or the function.
    :param when: the predicate that decides first, in the same way; None for none.
    :param attempt: the number of the attempt that the handler sees.
    :param timeout: seconds until ``context.deadline``; an ``async`` handler is cancelled then, of any other the outcome
        is ``timeout`` when it has returned.
    :param secrets: by reference what ``context.secret`` returns; any other one is missing.
    :param delivery: what the context says of the delivery.
    :raises ValueError: a function is missing, or cannot be called with an event, or another argument is wrong; the
        message says what to write.
    """
    _check(event, attempt, timeout, secrets)
    function = function_of(handler)
    predicate = None if when is None else function_of(when)
    log: list[LoggedRecord] = []
    context = _context(delivery, attempt, timeout, secrets, log)
    given = delivery.traceparent
    context.trace = parse_traceparent(given, event.headers.get(TRACESTATE, "")) if given else passed_on(event)
    run = _Attempt(event, context, timeout)
    if predicate is None or run.wants(predicate):
        run.handle(function)
    return run.ended(tuple(log))


def _check(event: TriggerEvent, attempt: int, timeout: float, secrets: Mapping[str, str]) -> None:
    """
    Check the arguments of an attempt.

    :raises ValueError: one is wrong; says what to write.
    """
    if not isinstance(event, TriggerEvent):
        made = "make one with github(...), example(...), tick(...), polled(...) or load_fixture(...)"
        raise ValueError(f"the event must be a TriggerEvent, got {type(event).__name__}; {made}")
    if attempt < 1:
        raise ValueError(f"attempt must be at least 1, got {attempt}")
    if not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds greater than 0, got {timeout}")
    for reference, value in secrets.items():
        try:
            parse_secret_reference(reference)
        except ValueError as wrong:
            raise ValueError(f"secrets: a name {wrong}") from None
        if not isinstance(value, str):
            raise ValueError(f"secrets: the value of {reference} must be text, got {type(value).__name__}")


def run_with_cursor(
    function: UserFunction, cursor: Any, *, timeout: float, secrets: Mapping[str, str], trigger_id: str
) -> HandlerRun:
    """Call the function of a poll, and return how that ended, as `run_handler` does; see `harn.testing.polls`."""
    log: list[LoggedRecord] = []
    run = _Attempt(cursor, _context(DeliveryContext(trigger_id=trigger_id), 1, timeout, secrets, log), timeout)
    run.handle(function)
    return run.ended(tuple(log))


def _context(
    delivery: DeliveryContext, attempt: int, timeout: float, secrets: Mapping[str, str], log: list[LoggedRecord]
) -> Context:
    """Return the context of a call; what it logs is added to ``log``."""
    return Context(
        binding=f"{delivery.trigger_id}@v1",
        trigger_id=delivery.trigger_id,
        attempt=attempt,
        deadline=time.time() + timeout,
        replay_of=delivery.replay_of,
        services=_Services(secrets, log),
    )


class _Services(Struct, frozen=True):
    """See `harn.handlers.AttemptServices`: keeps what is logged, and returns the secrets of the test."""

    secrets: Mapping[str, str]
    log: list[LoggedRecord]

    def log_record(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Keep a record."""
        self.log.append(LoggedRecord(level, message, fields))

    def fetch_secret(self, reference: str) -> Future[str]:
        """Return one of the secrets."""
        found: Future[str] = Future()
        if reference in self.secrets:
            found.set_result(self.secrets[reference])
        else:
            given = f'add secrets={{"{reference}": "..."}} to the call'
            found.set_exception(SecretMissing(f"no secret {reference!r} was given to run_handler; {given}"))
        return found


class _Attempt:
    """An attempt, from its first call to its end: with an event, or with the cursor of a poll."""

    def __init__(self, event: Any, context: Context, timeout: float) -> None:
        self._event = event
        self._context = context
        self._timeout = timeout
        self._began = time.monotonic()
        self._outcome = SKIPPED
        self._result: Any = None
        self._error: AttemptFailed | None = None
        self._exception: BaseException | None = None

    def wants(self, predicate: UserFunction) -> bool:
        """Call the predicate; return whether it said yes."""
        try:
            said = self._call(predicate)
        except (Exception, SystemExit) as error:  # which does not end an interpreter, either
            self._fails(error, PREDICATE_RAISED)
            return False
        if not isinstance(said, bool):
            self._fails(None, PREDICATE_RAISED, f"the predicate must return True or False, got {type(said).__name__}")
            return False
        return said

    def handle(self, handler: UserFunction) -> None:
        """Call the handler; keep its result, which must be JSON."""
        try:
            returned = self._call(handler)
        except (Exception, SystemExit) as error:
            self._fails(error, RAISED)
            return
        try:
            self._result = msgspec.json.decode(encode_result(returned))
        except Exception as error:  # encode_result's own, which has the kind of the failure
            self._fails(None, getattr(error, "kind", RAISED), str(error))
            return
        self._outcome = SUCCESS
        if time.monotonic() - self._began > self._timeout:
            self._fails(None, TIMED_OUT)

    def ended(self, log: tuple[LoggedRecord, ...]) -> HandlerRun:
        """Return how it ended."""
        seconds = time.monotonic() - self._began
        error = self._error
        if error is None:
            return HandlerRun(outcome=self._outcome, result=self._result, log=log, seconds=seconds)
        return HandlerRun(
            outcome=error.outcome,
            error_class=error.error_class,
            error=str(error),
            exception=self._exception,
            retry_after=error.seconds if isinstance(error, HandlerRetryAfter) else None,
            log=log,
            seconds=seconds,
        )

    def _fails(self, error: Exception | SystemExit | None, kind: int, message: str = "") -> None:
        """Record a failure as an interpreter's process reports it."""
        self._exception, self._result = error, None
        seconds = -1.0
        message = message or ("" if error is None else one_line(error))
        wait = wait_of(error) if isinstance(error, RetryAfter) else None
        if kind == RAISED and isinstance(error, Reject):
            kind, message = REJECTED, message_of(error)
        elif kind == RAISED and wait is not None and error is not None:
            kind, message, seconds = RETRY_AFTER, message_of(error), wait
        elif kind == TIMED_OUT or isinstance(error, _Cancelled):
            kind, message = TIMED_OUT, f"ran longer than {self._timeout:g} s"
        self._error = error_of(Failed(0, kind, message, "", seconds))

    def _call(self, function: UserFunction) -> Any:
        """Call a function, and await what it returns where that is awaitable."""
        arguments = (self._event, self._context) if function.wants_context else (self._event,)
        if function.is_async:
            return _outside_loops(lambda: asyncio.run(self._awaited_call(function, arguments)))
        returned = _outside_loops(lambda: function.call(*arguments))
        if not hasattr(returned, "__await__"):
            return returned
        return _outside_loops(lambda: asyncio.run(self._awaited(returned)))

    async def _awaited_call(self, function: UserFunction, arguments: tuple[Any, ...]) -> Any:
        return await self._awaited(function.call(*arguments))

    async def _awaited(self, awaitable: Any) -> Any:
        async def waiting() -> Any:
            return await awaitable

        left = max(0.0, self._timeout - (time.monotonic() - self._began))
        task = asyncio.ensure_future(waiting())
        done, _ = await asyncio.wait((task,), timeout=left)
        if done:
            return task.result()
        task.cancel()
        await asyncio.wait((task,))
        raise _Cancelled


class _Cancelled(Exception):
    """An ``async`` function has not ended in time."""


def _outside_loops(call: Callable[[], Any]) -> Any:
    """Call a function; in a thread where a loop runs already, as in an ``async`` test, as handlers have none above."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()
