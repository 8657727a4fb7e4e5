"""
Connectors for incoming requests: the base of all, and the shared code of providers that are declared.

Each such provider is a module of declarations: how its requests are verified, and where their fields are. This module
verifies, reads the body, refuses unreadable requests, and implements the plugin's interface.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Protocol

import msgspec
from attrs import evolve
from msgspec import Struct, field
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.auth.credentials import TOLERANCE, check_fresh
from harn.connectors.bodies import LONGEST_WORD, body_digest, identifier, moment, word
from harn.connectors.interfaces import (
    PUBLIC,
    ConnectorContext,
    Events,
    IConnectorPlugin,
    IEarlyReceiver,
    IRequestScheme,
    Normalized,
    NormalizedEvent,
    Respond,
)
from harn.connectors.messages import (
    Example,
    Fact,
    Fields,
    Header,
    Lifted,
    Member,
    Message,
    Path,
    always,
    dotted,
    first_of,
    header,
    member,
    nothing,
)
from harn.connectors.signing_keys import Scheme, keys_of, prove
from harn.errors import PayloadInvalid, SignatureMissing, SignatureStale
from harn.manifest.tables import StructSchema
from harn.model.event import VERIFIED
from harn.model.exchange import InboundRequest

__all__ = [
    "SECRET",
    "ConfiguredProvider",
    "Example",
    "Header",
    "Member",
    "Message",
    "Path",
    "Receiver",
    "SignedConnector",
    "SignedProvider",
    "always",
    "dotted",
    "first_of",
    "header",
    "member",
    "nothing",
]


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

    def _use_secret(self, name: str, scheme: Scheme) -> None:
        """
        Convert the values of the secret ``name`` to keys of a scheme.

        :raises StageFailed: see `keys_of`.
        """
        self._keys = keys_of(self._binding, name, scheme)


SECRET = "signing_secret"  # noqa: S105 - the name of a secret, not a secret

Reading = Callable[[Mapping[str, str], bytes], Message | tuple[Message, ...]]
"""Parses a request, of headers and body: a message, or the several that it holds."""


def no_values(message: Message) -> Mapping[str, Any]:
    """Return no further fields."""
    return {}


@implementer(IPlugin, IConnectorPlugin)
class SignedProvider(Struct, frozen=True, kw_only=True, eq=False):
    """
    The declaration of one provider.

    :ivar home: the module that declares it: ``__name__``.
    :ivar scheme: how the sender proves itself: a signature, or a credential.
    :ivar secrets: the secrets that it needs; several are joined by a colon to one key. With ``any_secret`` any of them
        is enough, and each value is a key.
    :ivar expects_handshake: while no secret is set, ``handshake`` answers what brings it, and nothing else; later none.
    :ivar tolerance: how far a signed time may be from now (seconds).
    :ivar read: parses a request.
    :ivar sent_at: when it was sent (seconds, Unix), where that is signed as a part of the body.
    :ivar values: further names in ``event.provider_payload``, and values that are computed.
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
    scheme: Scheme
    kind: Fact[Any]
    secrets: tuple[str, ...] = (SECRET,)
    any_secret: bool = False
    expects_handshake: bool = False
    tolerance: int = TOLERANCE
    read: Reading = Message.of
    sent_at: Fact[Any] | None = None
    values: Fact[Mapping[str, Any]] = no_values
    example: Example | None = None
    identity: Fact[Any] = nothing
    occurred_at: Fact[Any] = nothing
    fields: Fact[Fields] = field(default_factory=always)
    headers: Mapping[str, str] = field(default_factory=dict)
    handshake: Fact[Respond | None] = nothing
    acknowledgement: Fact[Respond | None] = nothing
    final: bytes = b""

    kinds = ("webhook",)
    table = None
    schema = None
    authentication = PUBLIC

    @property
    def required_secrets(self) -> tuple[str, ...]:
        """Return the names of secrets that a trigger must have."""
        return () if self.any_secret else self.secrets

    @property
    def optional_secrets(self) -> tuple[str, ...]:
        """Return the names of secrets that it may have."""
        return self.secrets if self.any_secret else ()

    @property
    def one_of_secrets(self) -> tuple[str, ...]:
        """Return the names of secrets of which it must have one."""
        return self.secrets if self.any_secret and not self.expects_handshake else ()

    def connector(self, context: ConnectorContext) -> SignedConnector:
        """Make the connector of one trigger."""
        if self.expects_handshake and not any(context.binding.secrets.get(name) for name in self.secrets):
            return ExpectingConnector(context, self)
        return (RequestConnector if IRequestScheme.providedBy(self.scheme) else SignedConnector)(context, self)

    def example_of(self, kind: str | None = None) -> Example | None:
        """
        Return the example, as a message of ``kind`` where one is given; None where there is none.

        :raises ValueError: it cannot be one of that kind.
        """
        return self.example if kind is None or self.example is None else self.example.of_kind(kind, self.kind)


class Declaring(Protocol):
    """The settings of a trigger whose provider is declared by them; a method ``problems`` may check them together."""

    def declared(self) -> SignedProvider:
        """Return the declaration."""


@implementer(IPlugin, IConnectorPlugin)
class ConfiguredProvider(Struct, frozen=True, kw_only=True, eq=False):
    """
    A provider whose declaration depends on the settings of the trigger.

    :ivar home: the module that declares it: ``__name__``.
    :ivar settings: the struct of its table, which makes the declaration: see `Declaring`.
    :ivar example_settings: keys of the table with which examples are tried.
    """

    provider: str
    home: str
    settings: type[Any]
    required_secrets: tuple[str, ...] = (SECRET,)
    example_settings: Mapping[str, Any] = field(default_factory=dict)

    kinds = ("webhook",)
    optional_secrets = ()
    authentication = PUBLIC

    @property
    def table(self) -> str:
        """Return the name of its table in a trigger."""
        return self.provider.replace("-", "_")

    @property
    def schema(self) -> StructSchema[Any]:
        """Return the schema of that table."""
        return StructSchema(self.settings)

    def declared(self, table: Any) -> SignedProvider:
        """Return the declaration for the checked table, given as plain values or as the struct."""
        settings: Declaring = msgspec.convert(table or {}, self.settings, from_attributes=True)
        return settings.declared()

    def connector(self, context: ConnectorContext) -> SignedConnector:
        """Make the connector of one trigger."""
        return self.declared(context.binding.settings).connector(context)


@implementer(IEarlyReceiver)
class SignedConnector(Receiver):
    """Receives the webhooks of one trigger."""

    def __init__(self, context: ConnectorContext, declared: SignedProvider) -> None:
        super().__init__(context)
        self._declared = declared
        self.scheme: Scheme = declared.scheme
        self.sent_at = declared.sent_at
        self._named = tuple(declared.headers.items())
        self._handshake: Fact[Respond | None] = nothing if declared.expects_handshake else declared.handshake
        self._is_plain = declared.sent_at is None and self._handshake is declared.acknowledgement is nothing
        self.final_headers: bytes = declared.final
        self.credential_headers: tuple[str, ...] = getattr(declared.scheme, "credential_headers", ())

    def prepare(self) -> None:
        """Prepare the secrets."""
        declared, secrets = self._declared, self._binding.secrets
        names = [name for name in declared.secrets if secrets.get(name)] if declared.any_secret else declared.secrets
        keys = [keys_of(self._binding, name, declared.scheme) for name in names or declared.secrets]
        self._keys = sum(keys, ()) if declared.any_secret else tuple(b":".join(each) for each in product(*keys))

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check that the signature's headers are present."""
        self._declared.scheme.check_headers(headers)

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check the signature over the raw body."""
        declared = self._declared
        declared.scheme.verify(self._keys, inbound.headers, inbound.body, now, declared.tolerance)

    def prove(self, request: InboundRequest, now: float) -> InboundRequest:
        """
        Return a request as the sender would send it, by the first of the secrets.

        :raises ValueError: the sender alone can sign: the secret is a public key.
        """
        if getattr(self._declared.scheme, "signs_privately", False):
            raise ValueError(
                f"{self._declared.provider} signs with a private key, and the secret here is the public one; to try it,"
                " set the public key of a pair of your own, and sign with the private one"
            )
        return prove(self._declared.scheme, self._keys[0], request, now)

    def example_of(self, kind: str | None = None) -> Example | None:
        """See `SignedProvider.example_of`."""
        return self._declared.example_of(kind)

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """Return the event, with the answer that its sender expects, or that answer alone."""
        message = (declared := self._declared).read(inbound.headers, inbound.body)
        if isinstance(message, tuple):
            return Events(tuple(self._event(each, each.body or b"") for each in message))
        if self._is_plain:  # no time in it, no answer but harn's own, as with most providers
            return Events((self._event(message, inbound.body),))
        if declared.sent_at is not None:
            self._check_sent(declared.sent_at(message), inbound.received_at)
        if (answer := self._handshake(message)) is not None:
            return answer
        event = self._event(message, inbound.body)
        answer = declared.acknowledgement(message)
        return Events((event,)) if answer is None else evolve(answer, events=(event,))

    def example(self) -> NormalizedEvent | None:
        """Return the event of the example, with its body; None where the provider declares no example."""
        given = self._declared.example
        if given is None:
            return None
        headers = {name.lower(): value for name, value in given.headers.items()}
        message = self._declared.read(headers, given.body)
        first = message[0] if isinstance(message, tuple) else message
        return msgspec.structs.replace(self._event(first, first.body or given.body), body=first.body or given.body)

    def _check_sent(self, sent_at: Any, now: float) -> None:
        """
        Check the time in the body, which is signed with it.

        :raises SignatureStale: it is absent, malformed, or too far from ``now``.
        """
        if type(sent_at) is not int and type(sent_at) is not float:
            raise SignatureStale("the body has no time at which it was sent, which is signed with it")
        check_fresh(str(int(sent_at)), now, self._declared.tolerance)

    def _event(self, message: Message, body: bytes) -> NormalizedEvent:
        """
        Return the event of a message.

        :raises PayloadInvalid: it has no kind.
        """
        declared, headers = self._declared, message.headers
        kind = word(declared.kind(message))
        if kind is None:
            raise PayloadInvalid(f"the body has no kind of event; is this a webhook of {declared.provider}?")
        payload: dict[str, Any] = {"event": kind}
        if declared.values is not no_values:
            payload = {**declared.values(message), "event": kind}
        for name, each in self._named:
            payload[name] = value if (value := headers.get(each)) and len(value) <= LONGEST_WORD else None
        occurred_at = None if declared.occurred_at is nothing else declared.occurred_at(message)
        fields = declared.fields(message)
        return NormalizedEvent(
            kind=kind,
            dedupe_key=identifier(declared.identity(message)) or body_digest(body),
            payload=payload,
            lifted=fields if type(fields) is Lifted else Lifted.of(fields),
            body_format=message.body_format,
            occurred_at=None if occurred_at is None else moment(occurred_at),
            signature_status=VERIFIED,
            body=message.body,
        )


class RequestConnector(SignedConnector):
    """Receives the webhooks of a provider of which more is verified than headers and body."""

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check the whole request."""
        declared = self._declared
        declared.scheme.verify_request(self._keys, inbound, now, declared.tolerance)


class ExpectingConnector(SignedConnector):
    """Receives the message that brings the secret of one trigger, and refuses every other."""

    def prepare(self) -> None:
        """Prepare nothing: there is no secret yet."""

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check nothing: the message is not signed."""

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check nothing: no event is accepted."""

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """
        Return the answer to the message that brings the secret.

        :raises SignatureMissing: it is another one.
        """
        message = self._declared.read(inbound.headers, inbound.body)
        answer = None if isinstance(message, tuple) else self._declared.handshake(message)
        if answer is None:
            raise SignatureMissing(
                f"the trigger has no secret of {self._declared.provider} yet, so that nothing can be verified"
            )
        return answer

    def prove(self, request: InboundRequest, now: float) -> InboundRequest:
        """Return the request unchanged: there is no secret to prove it with."""
        return request
