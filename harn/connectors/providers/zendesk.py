"""Zendesk: webhooks of events, and of triggers and automations, whose bodies an administrator writes."""

from __future__ import annotations

from harn.connectors.bodies import word
from harn.connectors.receivers import Example, Message, SignedProvider, always, first_of, header, member
from harn.connectors.signatures import Encoding, HmacScheme, Part, TimeFormat

SIGNATURE = HmacScheme(
    name="zendesk",
    header="X-Zendesk-Webhook-Signature",
    timestamp_header="X-Zendesk-Webhook-Signature-Timestamp",
    time_format=TimeFormat.RFC3339,
    signed=(Part.TIMESTAMP, Part.BODY),
    encoding=Encoding.BASE64,
)
"""Source: Zendesk, "Verifying webhook authenticity"."""


def _kind(message: Message) -> str:
    """Return the type of an event without its prefix, ``ticket.created``; of any other body ``webhook``."""
    return (word(message.at("type")) or "").removeprefix("zen:event-type:") or "webhook"


ZENDESK = SignedProvider(
    provider="zendesk",
    home=__name__,
    scheme=SIGNATURE,
    read=Message.any_of,
    kind=_kind,
    # The body of a trigger may have any "id", for example that of a ticket; it identifies no delivery.
    identity=first_of(header("X-Zendesk-Webhook-Invocation-Id")),
    occurred_at=member("time"),
    fields=always(
        event_id=("id",),
        subject=("subject",),
        detail=("detail",),
        change=("event",),
        account_id=("account_id",),
    ),
    headers={"webhook_id": "x-zendesk-webhook-id", "invocation_id": "x-zendesk-webhook-invocation-id"},
    example=Example(
        body=b'{"account_id": 22129848, "detail": {"id": "5158", "status": "OPEN"}, "event": {}, "id": "2b24ef10",'
        b' "subject": "zen:ticket:5158", "time": "2025-01-08T10:12:07Z", "type": "zen:event-type:ticket.created"}'
    ),
)
