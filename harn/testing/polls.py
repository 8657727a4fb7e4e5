"""
Functions of a poll, called without a server as a server calls them; what they return is read as in production.

::

    from harn.testing.polls import run_poll

    found = run_poll("handlers:new_orders", cursor=7)
    assert [event.kind for event in found.events] == ["order.created"] and found.cursor == 9
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harn.connectors.providers.poll import read_polled
from harn.errors import PayloadInvalid
from harn.handlers import TriggerEvent
from harn.testing.events import polled_event
from harn.testing.functions import Function, function_of
from harn.testing.handlers import SUCCESS, HandlerRun, run_with_cursor


class PollRun(Struct, frozen=True, kw_only=True):
    """
    One call of a poll's function.

    :ivar events: what it found, as a handler gets it.
    :ivar cursor: for the next call; that of this call where the function returned none, or failed.
    :ivar more: whether it asks to be called again immediately.
    :ivar run: how the call ended: outcome, error, log and seconds.
    """

    events: tuple[TriggerEvent, ...] = ()
    cursor: Any
    more: bool = False
    run: HandlerRun


def run_poll(
    poll: Function,
    cursor: Any = None,
    *,
    timeout: float = 30.0,
    secrets: Mapping[str, str] = {},
    trigger_id: str = "test",
) -> PollRun:
    """
    Call the function of a poll once; what it raises is in the answer, and not raised.

    :param poll: ``module:function`` as in a manifest, or the function.
    :param cursor: any JSON value; None as in the first call.
    :param timeout: see `harn.testing.handlers.run_handler`.
    :param secrets: see `harn.testing.handlers.run_handler`.
    :raises ValueError: the function is missing, or cannot be called with a cursor; the message says what to write.
    """
    before = msgspec.json.encode(cursor)
    given = msgspec.json.decode(before)
    run = run_with_cursor(function_of(poll), given, timeout=timeout, secrets=secrets, trigger_id=trigger_id)
    if run.outcome != SUCCESS:
        return PollRun(cursor=cursor, run=run)
    try:
        found = read_polled(msgspec.json.encode(run.result), trigger_id, before)
    except PayloadInvalid as wrong:
        failed = replace(run, outcome="failed", result=None, error_class=type(wrong).__name__, error=str(wrong))
        return PollRun(cursor=cursor, run=failed)
    events = tuple(map(polled_event, found.events))
    return PollRun(events=events, cursor=msgspec.json.decode(found.cursor), more=found.more, run=run)
