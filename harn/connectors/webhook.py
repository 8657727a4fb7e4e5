"""The generic webhook: any sender that signs by one of the common schemes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.auth.freshness import TOLERANCE
from harn.connectors import bodies
from harn.connectors.bodies import Fields
from harn.connectors.interfaces import PUBLIC, IConnectorPlugin, IReceiver
from harn.connectors.model import ConnectorContext, Events, Normalized, NormalizedEvent
from harn.connectors.receiver import Receiver
from harn.connectors.signatures.schemes import SCHEMES
from harn.manifest.schema import StructSchema
from harn.model.inbound import InboundRequest

SECRET = "signing_secret"  # noqa: S105 - the name of a secret, not a secret

# Where each scheme's senders put the identifier of a delivery, before the body's ``id``. A header counts only where
# the scheme signs it, or signs no header at all: else whoever captured a request could make it look new.
_IDENTIFIERS = {
    "standard": ("webhook-id", "svix-id"),
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
        """Take the checked table, as plain values or as what it already is."""
        return msgspec.convert(table or {}, cls, from_attributes=True)


@implementer(IReceiver)
class WebhookConnector(Receiver):
    """Takes the webhooks of one trigger."""

    def __init__(self, context: ConnectorContext) -> None:
        super().__init__(context)
        self._settings = WebhookSettings.of(context.binding.settings)
        self._scheme = SCHEMES[self._settings.signature_scheme]
        self._identifiers = _IDENTIFIERS[self._scheme.name]

    def prepare(self) -> None:
        """Make the secrets ready for the scheme."""
        self._use_secret(SECRET, self._scheme.key)

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check the signature by the configured scheme."""
        self._scheme.verify(self._keys, inbound.headers, inbound.body, now, self._settings.timestamp_tolerance_secs)

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """
        Give one event, whatever the body is; JSON is tried without regard to the content type.

        Its kind is ``X-GitHub-Event``, else the body's ``type`` or ``event``, else ``webhook``.
        """
        headers, body = inbound.headers, inbound.body
        body_format, fields = _read(body)
        content_type = headers.get("content-type")
        event = NormalizedEvent(
            kind=bodies.sane(headers.get("x-github-event"))
            or bodies.word(fields.type)
            or bodies.word(fields.event)
            or "webhook",
            dedupe_key=self._dedupe_key(inbound, fields),
            payload={
                "source": self._settings.source or headers.get("x-webhook-source"),
                "content_type": content_type,
            },
            body_format=body_format,
            occurred_at=bodies.occurred_at(fields.timestamp),
        )
        return Events((event,))

    def _dedupe_key(self, inbound: InboundRequest, fields: Fields) -> str:
        """Give the sender's identifier of the delivery, else the body's digest."""
        for header in self._identifiers:
            found = bodies.sane(inbound.headers.get(header))
            if found is not None:
                return found
        return bodies.identifier(fields.id) or bodies.body_digest(inbound.body)


def _read(body: bytes) -> tuple[str, Fields]:
    """Give the body's format, and its fields where it is a JSON object."""
    if not body:
        return "none", Fields()
    try:
        return "json", bodies.read_fields(body)
    except bodies.NOT_READABLE:
        return "json" if bodies.is_json(body) else "bytes", Fields()


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
    outbound = ()

    def connector(self, context: ConnectorContext) -> WebhookConnector:
        """Make the connector of one trigger."""
        return WebhookConnector(context)
