"""Values that cross a connector's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime

from harn.clocks import WallClock, WallTime
from harn.model.event import VERIFIED


@frozen(kw_only=True)
class ConnectorBinding:
    """
    A trigger as its connector sees it: never a version, never an interpreter.

    :ivar settings: the provider's own table, checked by the plugin's schema.
    :ivar secrets: for each name the values to try, in order (rotation).
    """

    trigger_id: str
    provider: str
    kind: str
    path: str
    events: tuple[str, ...]
    settings: Any
    secrets: Mapping[str, tuple[bytes, ...]] = field(repr=False)


@frozen(kw_only=True)
class ConnectorContext:
    """
    The dependencies of a connector.

    :ivar clock: for timers and durations; its seconds are not a time of day. ``wall``: the time of day.
    :ivar emit: ``emit(trigger_id, event) -> Deferred[None]``: passes on an event that the connector started itself,
        through the gate; the Deferred fires when the event is durable. Push connectors never call it.
    """

    clock: IReactorTime
    binding: ConnectorBinding
    emit: Callable[[str, NormalizedEvent], Any]
    wall: WallTime = field(factory=WallClock)


@frozen(kw_only=True)
class NormalizedEvent:
    """
    An event in the provider's words, before harn gives it an id.

    :ivar dedupe_key: the provider's own id of the delivery.
    :ivar payload: the provider's fields that are not in the body.
    :ivar lifted: name of a field -> its path in the parsed body.
    :ivar body_format: ``json``, ``form``, ``fields``, ``bytes`` or ``none``: see `harn.model.event.parse_body`.
    :ivar body: the bytes to keep; None for the request's own.
    """

    kind: str
    dedupe_key: str
    payload: dict[str, Any] = field(factory=dict)
    lifted: dict[str, list[str]] = field(factory=dict)
    body_format: str = "json"
    occurred_at: str | None = None
    signature_status: dict[str, str] = field(factory=lambda: VERIFIED)
    body: bytes | None = None


@frozen
class Events:
    """
    Store these events; answer when they are durable. An empty tuple: there is nothing to store, answer ``ignored``.
    """

    events: tuple[NormalizedEvent, ...]


@frozen(kw_only=True)
class Respond:
    """Store ``events``, then answer with this (a handshake, an acknowledgement in the provider's form)."""

    status: int
    body: bytes
    content_type: str
    events: tuple[NormalizedEvent, ...] = ()


@frozen(kw_only=True)
class Reject:
    """Store nothing, answer with this status and text."""

    status: int
    detail: str


Normalized = Events | Respond | Reject
