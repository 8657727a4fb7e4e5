"""
The shared base of providers that sign their webhooks: one is a module of declarations, and nothing else to write.

A declaration says how the provider signs and where in a request its facts are. Verifying, reading the body, refusing
what cannot be read, and the plugin's interface are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, field, frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.auth.freshness import TOLERANCE
from harn.connectors import bodies
from harn.connectors.interfaces import PUBLIC, IConnectorPlugin, IEarlyReceiver
from harn.connectors.model import ConnectorContext, Events, Normalized, NormalizedEvent, Respond
from harn.connectors.receiver import Receiver
from harn.connectors.signatures.interfaces import IScheme
from harn.errors import PayloadInvalid
from harn.model.inbound import InboundRequest

SECRET = "signing_secret"  # noqa: S105 - the name of a secret, not a secret

Path = tuple[str, ...]


@frozen
class Message:
    """
    A verified request, read.

    :ivar headers: names in lower case.
    :ivar body_format: ``json``, ``form`` or ``fields``: see `harn.model.event.parse_body`.
    """

    headers: Mapping[str, str]
    body_format: str
    document: bodies.Document

    @classmethod
    def of(cls, headers: Mapping[str, str], body: bytes) -> Message:
        """
        Read a request.

        :raises PayloadInvalid: its body is neither a JSON object nor a form.
        """
        return cls(headers, *bodies.read_message(headers, body))

    def at(self, *path: str) -> Any:
        """Give the value at a path of the body; None where there is nothing."""
        return self.document.at(*path)


Fact = Callable[[Message], Any]
"""Finds one fact in a message; None where it is not there."""


def member(*path: str) -> Fact:
    """Find a fact at a path of the body."""
    return lambda message: message.at(*path)


def header(name: str) -> Fact:
    """Find a fact in a header."""
    name = name.lower()
    return lambda message: message.headers.get(name)


def nothing(message: Message) -> None:
    """Find nothing."""


def always(**fields: Path) -> Callable[[Message], Mapping[str, Path]]:
    """Find the same fields in every message."""
    return lambda message: fields


@frozen(kw_only=True)
class Example:
    """A request that the provider might send: for tests, and for trying things out; its signature is made anew."""

    body: bytes
    headers: Mapping[str, str] = field(factory=lambda: {"Content-Type": "application/json"})


@implementer(IPlugin, IConnectorPlugin)
@frozen(kw_only=True, eq=False)
class SignedProvider:
    """
    What is particular about one provider.

    :ivar home: the module that declares it: ``__name__``.
    :ivar scheme: how it signs.
    :ivar kind: the kind of an event. A message without one is refused.
    :ivar identity: the identifier of a delivery, the same when it is sent again; else the body's digest is.
    :ivar occurred_at: when it happened: Unix seconds, or RFC 3339.
    :ivar fields: the names of ``event.provider_payload`` and where in the body each is.
    :ivar headers: further names of it, and the header of each.
    :ivar handshake: answers a message that is not an event; None for any other.
    :ivar acknowledgement: the answer that the sender wants when its event is kept; None for harn's own.
    :ivar final: header lines of answers that sending again would not change; each ends in CRLF.
    """

    provider: str
    home: str
    scheme: IScheme
    kind: Fact
    example: Example
    identity: Fact = nothing
    occurred_at: Fact = nothing
    fields: Callable[[Message], Mapping[str, Path]] = field(factory=always)
    headers: Mapping[str, str] = field(factory=dict)
    handshake: Callable[[Message], Respond | None] = nothing
    acknowledgement: Callable[[Message], Respond | None] = nothing
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
    """Takes the webhooks of one trigger."""

    def __init__(self, context: ConnectorContext, declared: SignedProvider) -> None:
        super().__init__(context)
        self._declared = declared
        self.final_headers: bytes = declared.final

    def prepare(self) -> None:
        """Make the secrets ready."""
        self._use_secret(SECRET, self._declared.scheme.key)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check that the signature's headers are there."""
        self._declared.scheme.check_headers(headers)

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check the signature over the raw body."""
        self._declared.scheme.verify(self._keys, inbound.headers, inbound.body, now, TOLERANCE)

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """Give the event, with the answer that its sender wants, or that answer alone."""
        message = Message.of(inbound.headers, inbound.body)
        answer = self._declared.handshake(message)
        if answer is not None:
            return answer
        event = self._event(message, inbound.body)
        answer = self._declared.acknowledgement(message)
        return Events((event,)) if answer is None else evolve(answer, events=(event,))

    def example(self) -> NormalizedEvent:
        """Give the event of the example, with its body."""
        given = self._declared.example
        headers = {name.lower(): value for name, value in given.headers.items()}
        return evolve(self._event(Message.of(headers, given.body), given.body), body=given.body)

    def _event(self, message: Message, body: bytes) -> NormalizedEvent:
        """
        Give the event that a message tells of.

        :raises PayloadInvalid: it does not say what happened.
        """
        declared = self._declared
        kind = bodies.word(declared.kind(message))
        if kind is None:
            raise PayloadInvalid(f"the body does not say what happened; is this a webhook of {declared.provider}?")
        return NormalizedEvent(
            kind=kind,
            dedupe_key=bodies.identifier(declared.identity(message)) or bodies.body_digest(body),
            payload={"event": kind, **{name: message.headers.get(each) for name, each in declared.headers.items()}},
            lifted={name: list(path) for name, path in declared.fields(message).items()},
            body_format=message.body_format,
            occurred_at=bodies.moment(declared.occurred_at(message)),
        )
