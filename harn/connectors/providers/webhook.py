"""The generic webhook: any sender that signs by one of the common schemes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.auth.credentials import TOLERANCE
from harn.connectors import bodies
from harn.connectors.bodies import NOTHING, Document
from harn.connectors.interfaces import (
    PUBLIC,
    ConnectorContext,
    Events,
    IConnectorPlugin,
    IEarlyReceiver,
    IScheme,
    Normalized,
    NormalizedEvent,
)
from harn.connectors.messages import Example
from harn.connectors.providers import github, slack, stripe
from harn.connectors.receivers import Receiver
from harn.connectors.signatures import StandardScheme, signed_id
from harn.connectors.signing_keys import prove
from harn.errors import PayloadInvalid
from harn.manifest.tables import StructSchema
from harn.model.exchange import InboundRequest
from harn.wire import canonical_json

SECRET = "signing_secret"  # noqa: S105 - the name of a secret, not a secret

SCHEMES: Mapping[str, IScheme] = {
    scheme.name: scheme for scheme in (StandardScheme(), stripe.SIGNATURE, github.SIGNATURE, slack.SIGNATURE)
}
"""The signature schemes by their names in ``signature_scheme``."""

# The header with the identifier of a delivery in each scheme, used before the body's ``id``. A header counts only where
# the scheme signs it, or signs no header at all: otherwise a captured request could be made to look new.
_IDENTIFIERS = {
    "standard": (),  # see `signed_id`
    "stripe": (),
    "github": ("webhook-id", "svix-id", "x-github-delivery"),
    "slack": (),
}


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[triggers.webhook]``."""

    signature_scheme: Annotated[
        Literal["standard", "stripe", "github", "slack"],
        msgspec.Meta(description="How the sender signs its requests."),
    ] = "standard"
    timestamp_tolerance_secs: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            description="How far the signed time may be from now, in seconds either way; github signs no time.",
        ),
    ] = TOLERANCE
    source: Annotated[
        str | None, msgspec.Meta(description="The sender's name in the event; default: the header X-Webhook-Source.")
    ] = None

    @classmethod
    def of(cls, table: Any) -> WebhookSettings:
        """Convert the checked table, given as plain values or as this class."""
        return msgspec.convert(table or {}, cls, from_attributes=True)


@implementer(IEarlyReceiver)
class WebhookConnector(Receiver):
    """Receives the webhooks of one trigger."""

    def __init__(self, context: ConnectorContext) -> None:
        super().__init__(context)
        self._settings = WebhookSettings.of(context.binding.settings)
        self._scheme = SCHEMES[self._settings.signature_scheme]
        self._identifiers = _IDENTIFIERS[self._scheme.name]

    def prepare(self) -> None:
        """Prepare the secrets for the scheme."""
        self._use_secret(SECRET, self._scheme)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check that the headers of the configured scheme are present."""
        self._scheme.check_headers(headers)

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check the signature by the configured scheme."""
        self._scheme.verify(self._keys, inbound.headers, inbound.body, now, self._settings.timestamp_tolerance_secs)

    def prove(self, request: InboundRequest, now: float) -> InboundRequest:
        """Return a request as the sender would send it, by the first of the secrets."""
        return prove(self._scheme, self._keys[0], request, now)

    def example_of(self, kind: str | None = None) -> Example:
        """Return an example of a kind."""
        return Example(body=canonical_json({"type": kind or "webhook", "id": "1"}))

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """
        Return one event. JSON is tried for any content type; a body declared as JSON must be JSON.

        Its kind is ``X-GitHub-Event``, else the body's ``type`` or ``event``, else ``webhook``.
        """
        headers, body = inbound.headers, inbound.body
        body_format, document = _read(headers, body)
        content_type = headers.get("content-type")
        event = NormalizedEvent(
            kind=bodies.word(headers.get("x-github-event"))
            or bodies.word(document.at("type"))
            or bodies.word(document.at("event"))
            or "webhook",
            dedupe_key=self._dedupe_key(inbound, document),
            payload={
                "source": self._settings.source or headers.get("x-webhook-source"),
                "content_type": content_type,
            },
            body_format=body_format,
            occurred_at=bodies.occurred_at(document.at("timestamp")),
        )
        return Events((event,))

    def _dedupe_key(self, inbound: InboundRequest, document: Document) -> str:
        """Return the sender's identifier of the delivery, else the body's digest."""
        given = [inbound.headers.get(header) for header in self._identifiers]
        if isinstance(self._scheme, StandardScheme):
            given = [signed_id(inbound.headers)]
        for each in given:
            found = bodies.word(each)
            if found is not None:
                return found
        return bodies.identifier(document.at("id")) or bodies.body_digest(inbound.body)


def _read(headers: Mapping[str, str], body: bytes) -> tuple[str, Document]:
    """
    Return the body's format, and the document where it is JSON.

    :raises PayloadInvalid: it is declared as JSON, and is not.
    """
    if not body:
        return "none", NOTHING
    claimed = bodies.claims_json(headers)
    if claimed:
        bodies.check_charset(headers, body)
    try:
        return "json", bodies.read_json(body)
    except PayloadInvalid:
        if claimed:
            raise
        return "bytes", NOTHING


@implementer(IPlugin, IConnectorPlugin)
class WebhookPlugin:
    """The provider ``webhook``."""

    provider = "webhook"
    kinds = ("webhook",)
    table = "webhook"
    schema = StructSchema(WebhookSettings)
    required_secrets = (SECRET,)
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context: ConnectorContext) -> WebhookConnector:
        """Make the connector of one trigger."""
        return WebhookConnector(context)
