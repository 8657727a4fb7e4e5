"""SendGrid: the event webhook: each request has many events, and each of them becomes a delivery of its own."""

from __future__ import annotations

from harn.connectors.public_keys import Algorithm, PublicKeyScheme
from harn.connectors.receivers import Example, Message, SignedProvider, always, member

SIGNATURE = PublicKeyScheme(
    name="sendgrid",
    header="X-Twilio-Email-Event-Webhook-Signature",
    timestamp_header="X-Twilio-Email-Event-Webhook-Timestamp",
    algorithm=Algorithm.ECDSA,
)
"""The secret is the verification key. Source: SendGrid, "Event Webhook Security Features"."""

TOLERANCE = 25 * 3600
"""Seconds: SendGrid repeats a request for a day, and does not say whether it signs each attempt again."""

SENDGRID = SignedProvider(
    provider="sendgrid",
    home=__name__,
    scheme=SIGNATURE,
    tolerance=TOLERANCE,
    read=Message.each_of,
    kind=member("event"),
    identity=member("sg_event_id"),
    occurred_at=member("timestamp"),
    fields=always(
        email=("email",),
        sg_event_id=("sg_event_id",),
        sg_message_id=("sg_message_id",),
        smtp_id=("smtp-id",),
        category=("category",),
        reason=("reason",),
        status=("status",),
        response=("response",),
        url=("url",),
    ),
    example=Example(
        body=b'[{"email": "a@example.com", "timestamp": 1600112502, "event": "delivered",'
        b' "sg_event_id": "ZGVsaXZlcmVk", "sg_message_id": "LRzXl_NHStOGhQ4kofSm_A.filterdrecv"}]\r\n'
    ),
)
