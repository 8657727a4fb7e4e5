"""Stripe: events of an account, and thin events."""

from __future__ import annotations

from harn.connectors.receivers import Example, SignedProvider, always, member
from harn.connectors.signatures import HmacScheme, Part

SIGNATURE = HmacScheme(
    name="stripe",
    header="Stripe-Signature",
    entries=("t", "v1"),
    signed=(Part.TIMESTAMP, b".", Part.BODY),
)
"""Source: Stripe, "Resolve webhook signature verification errors", manual verification."""

STRIPE = SignedProvider(
    provider="stripe",
    home=__name__,
    scheme=SIGNATURE,
    kind=member("type"),
    identity=member("id"),
    occurred_at=member("created"),
    fields=always(
        event_id=("id",),
        account=("account",),
        api_version=("api_version",),
        livemode=("livemode",),
        object=("data", "object"),
        previous_attributes=("data", "previous_attributes"),
        related_object=("related_object",),
    ),
    example=Example(
        body=b'{"id": "evt_1NG8Du2eZvKYlo2CUI79vXWy", "object": "event", "created": 1686089970, "livemode": false, '
        b'"type": "payment_intent.succeeded", "data": {"object": {"id": "pi_1", "object": "payment_intent"}}}'
    ),
)
