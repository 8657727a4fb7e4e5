"""
Connectors for incoming requests: the base of all, and the shared code of providers that sign their webhooks.

Each such provider is a module of declarations, without code. A declaration says how the provider signs, and where in a
request its fields are. This module verifies, reads the body, refuses unreadable requests, and implements the plugin's
interface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from attrs import evolve, field, frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.auth.credentials import TOLERANCE
from harn.connectors import bodies
from harn.connectors.interfaces import (
    PUBLIC,
    ConnectorContext,
    Events,
    IConnectorPlugin,
    IEarlyReceiver,
    IScheme,
    Normalized,
    NormalizedEvent,
    Respond,
)
from harn.errors import PayloadInvalid, StageFailed
from harn.model.exchange import InboundRequest


class Receiver:
    """
    The life cycle of a connector that waits for requests. It starts nothing, so it has nothing to stop.

    Subclasses add ``verify`` and ``normalize``.
    """

    def __init__(self, context: ConnectorContext) -> None:
        self._binding = context.binding
        self._keys: tuple[bytes, ...] = ()

    def prepare(self) -> None:
        """Acquire nothing; subclasses prepare their keys."""

    def activate(self) -> None:
        """Start nothing: requests arrive through the route."""

    def quiesce(self) -> None:
        """Stop nothing: the route is removed elsewhere, and leased requests may still arrive."""

    def close(self) -> None:
        """Remove the keys."""
        self._keys = ()

    def _use_secret(self, name: str, scheme: IScheme) -> None:
        """
        Convert the values of the secret ``name`` to keys of a scheme.

        :raises StageFailed: it has no value, or one is not usable; names the trigger and the position, never the value.
        """
        values = self._binding.secrets.get(name, ())
        if not values:
            raise StageFailed("prepare", f"trigger {self._binding.trigger_id}: the secret {name} has no value")
        keys = []
        for number, value in enumerate(values, start=1):
            try:
                keys.append(scheme.key(value))
            except ValueError as error:
                place = name if len(values) == 1 else f"{name} (number {number} of {len(values)})"
                raise StageFailed(
                    "prepare",
                    f"trigger {self._binding.trigger_id}: the value of the secret {place} cannot be used: {error}",
                ) from None
        self._keys = tuple(keys)


SECRET = "signing_secret"  # noqa: S105 - the name of a secret, not a secret

Path = tuple[str, ...]


class Message(msgspec.Struct, frozen=True, gc=False):
    """
    A verified request, parsed.

    :ivar headers: names in lower case.
    :ivar body_format: ``json``, ``form`` or ``fields``: see `harn.model.event.parse_body`.
    """

    headers: Mapping[str, str]
    body_format: str
    document: bodies.Document

    @classmethod
    def of(cls, headers: Mapping[str, str], body: bytes) -> Message:
        """
        Parse a request.

        :raises PayloadInvalid: its body is neither a JSON object nor a form.
        """
        return cls(headers, *bodies.read_message(headers, body))

    def at(self, *path: str) -> Any:
        """Return the value at a path of the body; None if absent."""
        return self.document.at(*path)


Fact = Callable[[Message], Any]
"""Finds one field in a message; None if absent."""
Fields = Callable[[Message], Mapping[str, Path]]
"""Returns the fields of a message: names, and their paths in the body."""
Answering = Callable[[Message], Respond | None]
"""Returns the answer to a message; None for no answer of its own."""


def member(*path: str) -> Fact:
    """Make a fact that reads a path of the body."""
    return lambda message: message.at(*path)


def header(name: str) -> Fact:
    """Make a fact that reads a header."""
    name = name.lower()
    return lambda message: message.headers.get(name)


def nothing(message: Message) -> None:
    """Return None, for any message."""


def always(**fields: Path) -> Fields:
    """Make a function that returns the same fields for every message."""
    return lambda message: fields


@frozen(kw_only=True)
class Example:
    """A request that the provider might send: for tests, and for trying things out; it is signed when it is used."""

    body: bytes
    headers: Mapping[str, str] = field(factory=lambda: {"Content-Type": "application/json"})


@implementer(IPlugin, IConnectorPlugin)
@frozen(kw_only=True, eq=False)
class SignedProvider:
    """
    The declaration of one provider.

    :ivar home: the module that declares it: ``__name__``.
    :ivar scheme: its signature scheme.
    :ivar kind: the kind of an event. A message without one is refused.
    :ivar identity: the identifier of a delivery, the same when it is sent again; else the body's digest is.
    :ivar occurred_at: when it happened: Unix seconds, or RFC 3339.
    :ivar fields: the names in ``event.provider_payload`` and their paths in the body.
    :ivar headers: further names in it, and the header of each; they replace fields of the same name.
    :ivar handshake: returns the answer to a message that is not an event; None for any other.
    :ivar acknowledgement: returns the answer that the sender expects when its event is stored; None for harn's own.
    :ivar example: a request that the provider might send; None where it has none.
    :ivar final: header lines of answers for which a repeated request would not help; each ends in CRLF.
    """

    provider: str
    home: str
    scheme: IScheme
    kind: Fact
    example: Example | None = None
    identity: Fact = nothing
    occurred_at: Fact = nothing
    fields: Fields = field(factory=always)
    headers: Mapping[str, str] = field(factory=dict)
    handshake: Answering = nothing
    acknowledgement: Answering = nothing
    final: bytes = b""

    kinds = ("webhook",)
    table = None
    schema = None
    required_secrets = (SECRET,)
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context: ConnectorContext) -> SignedConnector:
        """Make the connector of one trigger."""
        return SignedConnector(context, self)


@implementer(IEarlyReceiver)
class SignedConnector(Receiver):
    """Receives the webhooks of one trigger."""

    def __init__(self, context: ConnectorContext, declared: SignedProvider) -> None:
        super().__init__(context)
        self._declared = declared
        self.final_headers: bytes = declared.final

    def prepare(self) -> None:
        """Prepare the secrets."""
        self._use_secret(SECRET, self._declared.scheme)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check that the signature's headers are present."""
        self._declared.scheme.check_headers(headers)

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check the signature over the raw body."""
        self._declared.scheme.verify(self._keys, inbound.headers, inbound.body, now, TOLERANCE)

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """Return the event, with the answer that its sender expects, or that answer alone."""
        message = Message.of(inbound.headers, inbound.body)
        answer = self._declared.handshake(message)
        if answer is not None:
            return answer
        event = self._event(message, inbound.body)
        answer = self._declared.acknowledgement(message)
        return Events((event,)) if answer is None else evolve(answer, events=(event,))

    def example(self) -> NormalizedEvent | None:
        """Return the event of the example, with its body; None where the provider declares no example."""
        given = self._declared.example
        if given is None:
            return None
        headers = {name.lower(): value for name, value in given.headers.items()}
        return evolve(self._event(Message.of(headers, given.body), given.body), body=given.body)

    def _event(self, message: Message, body: bytes) -> NormalizedEvent:
        """
        Return the event of a message.

        :raises PayloadInvalid: it has no kind.
        """
        declared = self._declared
        kind = bodies.word(declared.kind(message))
        if kind is None:
            raise PayloadInvalid(f"the body has no kind of event; is this a webhook of {declared.provider}?")
        payload: dict[str, Any] = {"event": kind}
        for name, each in declared.headers.items():
            payload[name] = bodies.word(message.headers.get(each))
        return NormalizedEvent(
            kind=kind,
            dedupe_key=bodies.identifier(declared.identity(message)) or bodies.body_digest(body),
            payload=payload,
            lifted={name: list(path) for name, path in declared.fields(message).items()},
            body_format=message.body_format,
            occurred_at=bodies.moment(declared.occurred_at(message)),
        )
