"""Linear: webhooks of a workspace, whose kinds are an entity and what was done to it: ``issue.create``."""

from __future__ import annotations

from collections.abc import Mapping

from harn.connectors.bodies import word
from harn.connectors.messages import Milliseconds, snake_case
from harn.connectors.receivers import Example, Message, Path, SignedProvider, header, member
from harn.connectors.signatures import HmacScheme

SIGNATURE = HmacScheme(name="linear", header="Linear-Signature")
"""The time is signed as a part of the body. Source: Linear, "Webhooks", "Securing webhooks"."""

TOLERANCE = 75
"""Seconds: the minute that Linear advises, and a quarter more for clocks that differ."""


def _entity(message: Message) -> str | None:
    """Return the entity of an event, for example ``issue_label``."""
    name = word(message.at("type"))
    return None if name is None else snake_case(name)


def _kind(message: Message) -> str | None:
    entity, action = _entity(message), word(message.at("action"))
    return entity and f"{entity}.{action or 'update'}"


def _fields(message: Message) -> Mapping[str, Path]:
    """Return the fields that every event has, and the entity under its own name."""
    names = {"action": "action", "organization_id": "organizationId", "webhook_timestamp": "webhookTimestamp"}
    names |= {"webhook_id": "webhookId", "url": "url", "created_at": "createdAt", "actor": "actor"}
    names |= {"updated_from": "updatedFrom", _entity(message) or "data": "data"}
    return {name: (place,) for name, place in names.items()}


LINEAR = SignedProvider(
    provider="linear",
    home=__name__,
    scheme=SIGNATURE,
    tolerance=TOLERANCE,
    sent_at=Milliseconds("webhookTimestamp"),
    kind=_kind,
    # webhookId is that of the webhook, the same in all its deliveries; without the header the body's digest counts.
    identity=header("Linear-Delivery"),
    occurred_at=member("createdAt"),
    fields=_fields,
    headers={"delivery_id": "linear-delivery", "linear_event": "linear-event"},
    example=Example(
        body=b'{"action": "create", "type": "Issue", "organizationId": "o1", "webhookTimestamp": 1700000000000,'
        b' "createdAt": "2023-11-14T22:13:20.000Z", "data": {"id": "i1", "identifier": "ENG-7", "title": "t"}}'
    ),
)
