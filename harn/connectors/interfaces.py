"""
The interfaces of connectors, and the values that cross them. Harn's own connectors use the same ones as third-party
connectors.

Order of life, which `harn.testing.connectors` checks: ``prepare`` once, ``activate`` at most once after it, ``quiesce``
at most once, ``close`` exactly once (after a failed ``prepare`` too). ``prepare``, ``activate`` and ``close`` may
return a Deferred, be coroutines, or plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import field, frozen
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from harn.clocks import WallClock, WallTime
from harn.model.delivery import Checkpoint, Claim
from harn.model.event import VERIFIED
from harn.model.exchange import InboundRequest


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


class IEmitter(Interface):
    """Takes the events that one connector starts itself; its gate is the server's."""

    def emit(trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """
        Pass an event on.

        :return: fires when the event is durable; fails with `GateShut` when it was not accepted, and with the failure
            of what should have stored it.
        """


@frozen(kw_only=True)
class ConnectorContext:
    """
    The dependencies of a connector.

    :ivar clock: for timers and durations; its seconds are not a time of day.
    :ivar wall: the time of day.
    :ivar gate: takes the events that the connector starts itself; see `emit`.
    """

    clock: IReactorTime
    binding: ConnectorBinding
    gate: IEmitter
    wall: WallTime = field(factory=WallClock)

    def emit(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """See `IEmitter.emit`; push connectors never call it."""
        return self.gate.emit(trigger_id, event)


class NormalizedEvent(msgspec.Struct, frozen=True, kw_only=True):
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
    payload: dict[str, Any] = msgspec.field(default_factory=dict)
    lifted: dict[str, list[str]] = msgspec.field(default_factory=dict)
    body_format: str = "json"
    occurred_at: str | None = None
    signature_status: dict[str, str] = msgspec.field(default_factory=lambda: VERIFIED)
    body: bytes | None = None


class Events(msgspec.Struct, frozen=True):
    """
    Store these events; answer when they are durable. An empty tuple: there is nothing to store, answer ``ignored``.
    """

    events: tuple[NormalizedEvent, ...]


@frozen(kw_only=True)
class Respond:
    """
    Store ``events``, then answer with this (a handshake, an acknowledgement in the provider's form).

    :ivar captured: the secret that the sender brought with its handshake, for the operator to set; never logged.
    """

    status: int
    body: bytes
    content_type: str
    events: tuple[NormalizedEvent, ...] = ()
    captured: str | None = field(default=None, repr=False)


class Reject(Struct, frozen=True, kw_only=True):
    """Store nothing, answer with this status and text."""

    status: int
    detail: str


Normalized = Events | Respond | Reject


Headers = Mapping[str, str]
PUBLIC = "public"
CREDENTIALS = "credentials"
VERIFIED_HERE = "verified"
"""As `PUBLIC`, for a connector that fetches the sender's keys: see `IKeyedReceiver`."""


class IConnector(Interface):
    """Receives or produces events of one provider for one trigger."""

    def prepare() -> Any:
        """Acquire everything that can fail; have no effect visible outside."""

    def activate() -> Any:
        """Start; its own events go through the gate, which may still be shut."""

    def quiesce() -> None:
        """Stop accepting new work immediately. Requests that hold a lease may still be verified and normalized."""

    def close() -> Any:
        """Release everything."""


class IReceiver(IConnector):
    """A connector whose events come as requests to the trigger's route."""

    def verify(inbound: InboundRequest, now: float) -> None:
        """
        Check that the provider sent it. Pure computation on raw bytes, in constant time.

        :param now: seconds, Unix.
        :raises CredentialsRejected: one of its classes.
        """

    def normalize(inbound: InboundRequest) -> Normalized:
        """
        Convert a request to events or an answer. Pure computation.

        :raises PayloadInvalid: the body does not have the provider's format.
        """


class IEarlyReceiver(IReceiver):
    """A receiver that can refuse a request by its headers, before the body is read."""

    def check_headers(headers: Mapping[str, str]) -> None:
        """
        Check that the headers which carry the signature are present. Pure computation; `verify` checks the signature
        itself.

        :param headers: names in lower case.
        :raises CredentialsRejected: one of its classes.
        """


class IKeyedReceiver(IEarlyReceiver):
    """A receiver that may have to fetch keys of its sender first, and to which each proof counts once."""

    authentication: str = Attribute("`VERIFIED_HERE`, or that of its plugin.")

    def look_for_keys(headers: Mapping[str, str]) -> Deferred[None] | None:
        """Return None where `verify` can be called now; else a Deferred that fires when it can."""

    def claim_of(headers: Mapping[str, str]) -> Claim | None:
        """Return the claim that must be new for a verified request to count; None for none."""


class IConnectorPlugin(IPlugin):
    """One provider; found with ``twisted.plugin.getPlugins`` in ``harn.plugins``."""

    provider: str = Attribute("For example ``github``: the value of ``provider`` in the manifest.")
    kinds: Sequence[str] = Attribute("Trigger kinds, for example ``('webhook',)``.")
    table: str | None = Attribute("The provider's own table in a trigger, for example ``webhook``; None for none.")
    schema: Any = Attribute("A `harn.manifest.interfaces.ISettingsSchema` for that table; None for none.")
    # Optional, for a provider whose settings are keys of the trigger itself: ``keys``, their names, which ``schema``
    # checks; ``events``, the kinds of its events where they are always the same.
    required_secrets: Sequence[str] = Attribute("Names that a trigger's ``secrets`` must have.")
    optional_secrets: Sequence[str] = Attribute("Names that it may have.")
    authentication: str = Attribute("`PUBLIC` (the provider's signature decides) or `CREDENTIALS` (harn's own).")

    def connector(context: ConnectorContext) -> IConnector:
        """Make a connector for one trigger; acquire nothing yet."""


class IEventSink(Interface):
    """Takes the events that do not come as requests: those that connectors start themselves, through their gates."""

    def take(trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """
        Accept an event for the newest version of a trigger.

        :return: fires when the event is durable; fails with `GateShut` when the trigger is not in force.
        """

    def take_all(trigger_id: str, events: Sequence[NormalizedEvent], checkpoint: Checkpoint) -> Deferred[None]:
        """
        Accept events for the newest version of a trigger, and keep a checkpoint, in one durable unit.

        :return: as that of `take`; when it fails, neither is kept.
        """


class IExamples(Interface):
    """Gives examples of events; provided by `harn.reload.adopt.LiveGeneration`."""

    def example(trigger_id: str) -> NormalizedEvent | None:
        """Return an event such as the provider of a live trigger sends, with its body; None where that is not known."""


class IScheme(Interface):
    """One way of signing requests. Pure computation."""

    name: str = Attribute("For example ``standard``.")

    def key(secret: bytes) -> bytes:
        """
        Return the key for a configured secret.

        :raises ValueError: it is not a key; the message does not quote it.
        """

    def verify(keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int) -> None:
        """
        Check that the sender signed ``body`` with one of ``keys``, and did so recently if it signs a time.

        :param headers: names in lower case, as received.
        :param body: the request body before any decoding.
        :param now: seconds, Unix.
        :param tolerance: seconds either way, inclusive.
        :raises SignatureMissing: a header is absent.
        :raises SignatureStale: the time is malformed, or outside the window.
        :raises SignatureMismatch: no key made it (compared in constant time), or it is malformed.
        """

    def check_headers(headers: Headers) -> None:
        """
        Check the headers alone, before the body has arrived.

        :param headers: names in lower case.
        :raises SignatureMissing: a header that carries the signature is absent; names one.
        """

    def sign(key: bytes, body: bytes, now: float) -> dict[str, str]:
        """
        Return the headers, spelled as the sender does, with which ``body`` is verified at ``now`` (seconds, Unix).
        """


class IRequestScheme(Interface):
    """A way of proving who sent a request, in which more counts than headers and body: its URL, or the query."""

    name: str = Attribute("For example ``twilio``.")

    def key(secret: bytes) -> bytes:
        """See `IScheme.key`."""

    def verify_request(keys: Sequence[bytes], request: InboundRequest, now: float, tolerance: int) -> None:
        """
        Check that the sender sent ``request``, by one of ``keys``; see `IScheme.verify`.

        :raises SignatureMissing: or another class of `CredentialsRejected`.
        """

    def check_headers(headers: Headers) -> None:
        """See `IScheme.check_headers`."""

    def sign_request(key: bytes, request: InboundRequest, now: float) -> InboundRequest:
        """Return the request with what shows who sent it, so that it is verified at ``now`` (seconds, Unix)."""
