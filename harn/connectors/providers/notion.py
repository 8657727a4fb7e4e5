"""Notion: webhooks of a connection. Its first request brings the secret, and is taken only while there is none."""

from __future__ import annotations

from harn.connectors.bodies import word
from harn.connectors.interfaces import Respond
from harn.connectors.receivers import Example, Message, SignedProvider, always, member
from harn.connectors.signatures import HmacScheme

SIGNATURE = HmacScheme(name="notion", header="X-Notion-Signature", prefix="sha256=")
"""
The key is the verification token; no time is signed. Source: Notion, "Webhooks", "Validating event payloads".
"""


def _handshake(message: Message) -> Respond | None:
    """Answer the request that brings the verification token, which is then entered at Notion and set as the secret."""
    token = word(message.at("verification_token"))
    if token is None or message.at("type") is not None:
        return None
    body = b'{"status":"handshake_captured"}'
    return Respond(status=200, body=body, content_type="application/json", captured=token)


NOTION = SignedProvider(
    provider="notion",
    home=__name__,
    scheme=SIGNATURE,
    secrets=("signing_secret", "verification_token"),
    any_secret=True,
    expects_handshake=True,
    handshake=_handshake,
    kind=member("type"),
    identity=member("id"),
    occurred_at=member("timestamp"),
    fields=always(
        workspace_id=("workspace_id",),
        subscription_id=("subscription_id",),
        integration_id=("integration_id",),
        attempt_number=("attempt_number",),
        api_version=("api_version",),
        authors=("authors",),
        entity_id=("entity", "id"),
        entity_type=("entity", "type"),
        data=("data",),
    ),
    example=Example(
        body=b'{"id": "367cba44-b6f3-4c92-81e7-6a2e9659efd4", "timestamp": "2024-12-05T23:55:34.285Z",'
        b' "type": "page.created", "attempt_number": 1, "entity": {"id": "153104cd", "type": "page"}, "data": {}}'
    ),
)
