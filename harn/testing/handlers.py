"""
The kit for authors of handlers: events out of fixtures, and handlers called as a server calls them.

::

    from harn.testing.handlers import load_fixture, run_handler

    result = run_handler(handlers.on_issue, load_fixture("fixtures/issue.json"), secrets={"github/token": "t"})
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec
from attrs import field, frozen

from harn.handlers import Context, Log, SecretMissing, TriggerEvent
from harn.model.event import read_fixture


@frozen
class LoggedRecord:
    """A record that a handler logged through ``context.log``."""

    level: str
    message: str
    fields: Mapping[str, Any] = field(factory=dict)


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


def run_handler(
    handler: Callable[..., Any],
    event: TriggerEvent,
    *,
    attempt: int = 1,
    timeout: float = 30.0,
    secrets: Mapping[str, str] = {},
    logged: list[LoggedRecord] | None = None,
) -> Any:
    """
    Call a handler, ``async`` or not, with or without a context, and return its result, which must be JSON.

    Whatever it raises is raised, `harn.handlers.Reject` and `harn.handlers.RetryAfter` too.

    :param attempt: the number of the attempt that it sees.
    :param timeout: seconds until its ``context.deadline``; an ``async`` handler is cancelled then.
    :param secrets: by reference what ``context.secret`` returns; any other one is missing.
    :param logged: gets what it logs through ``context.log``.
    :raises TypeError: its result is not a JSON value.
    :raises TimeoutError: an ``async`` handler has not ended in time.
    """
    records = [] if logged is None else logged
    context = Context(
        binding="test@v1",
        trigger_id="test",
        attempt=attempt,
        deadline=time.time() + timeout,
        replay_of=None,
        log=Log(lambda level, message, fields: records.append(LoggedRecord(level, message, fields))),
        ask=lambda reference: _secret(secrets, reference),
    )
    called = handler(event, context) if _wants_context(handler) else handler(event)
    if inspect.isawaitable(called):
        called = asyncio.run(_awaited(called, timeout))
    msgspec.json.encode(called)
    return called


async def _awaited(called: Any, timeout: float) -> Any:
    return await asyncio.wait_for(called, timeout)


def _wants_context(handler: Callable[..., Any]) -> bool:
    """Return whether a function takes a second argument by its place."""
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(handler).parameters.values()
    return sum(each.kind in by_place for each in parameters) > 1 or any(
        each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters
    )


def _secret(secrets: Mapping[str, str], reference: str) -> Future[str]:
    found: Future[str] = Future()
    if reference in secrets:
        found.set_result(secrets[reference])
    else:
        found.set_exception(SecretMissing(f"no secret {reference!r} was given to run_handler"))
    return found
