"""Any sender that signs as Standard Webhooks, or Svix, says."""

from __future__ import annotations

from harn.connectors.receivers import Example, Message, SignedProvider, always, first_of, member
from harn.connectors.signatures import StandardScheme, signed_id

SIGNATURE = StandardScheme()
"""Source: Standard Webhooks specification 1.0."""

STANDARD = SignedProvider(
    provider="standard",
    home=__name__,
    scheme=SIGNATURE,
    read=Message.any_of,
    kind=first_of(member("type"), member("event"), member("eventType"), otherwise="webhook"),
    identity=lambda message: signed_id(message.headers),
    occurred_at=member("timestamp"),
    fields=always(data=("data",)),
    example=Example(body=b'{"type": "contact.created", "timestamp": "2022-11-03T20:26:10.344522Z", "data": {"id": 1}}'),
)
