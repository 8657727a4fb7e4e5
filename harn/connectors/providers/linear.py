"""Linear: webhooks of a workspace, whose kinds are an entity and what was done to it: ``issue.create``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harn.connectors.bodies import word
from harn.connectors.receivers import Example, Message, Path, SignedProvider, header, member
from harn.connectors.signatures import HmacScheme

SIGNATURE = HmacScheme(name="linear", header="Linear-Signature")
"""The time is signed as a part of the body. Source: Linear, "Webhooks", "Securing webhooks"."""

TOLERANCE = 75
"""Seconds: the minute that Linear advises, and a quarter more for clocks that differ."""

_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _entity(message: Message) -> str | None:
    """Return the entity of an event, for example ``issue_label``."""
    name = word(message.at("type"))
    return None if name is None else _CAPITAL.sub("_", name).lower()


def _kind(message: Message) -> str | None:
    entity, action = _entity(message), word(message.at("action"))
    return entity and f"{entity}.{action or 'update'}"


def _fields(message: Message) -> Mapping[str, Path]:
    """Return the fields that every event has, and the entity under its own name."""
    names = {"action": "action", "organization_id": "organizationId", "webhook_timestamp": "webhookTimestamp"}
    names |= {"webhook_id": "webhookId", "url": "url", "created_at": "createdAt", "actor": "actor"}
    names |= {"updated_from": "updatedFrom", _entity(message) or "data": "data"}
    return {name: (place,) for name, place in names.items()}


class _SentAt:
    """The time in the body, which is signed with it: ``webhookTimestamp``, in milliseconds."""

    def __call__(self, message: Message) -> float | None:
        """Return it in seconds, Unix; None if it is absent or malformed."""
        milliseconds = message.at("webhookTimestamp")
        return milliseconds / 1000 if type(milliseconds) is int and abs(milliseconds) < 10**15 else None

    def put(self, value: float, document: dict[str, Any]) -> None:
        """Write a time (seconds, Unix) there."""
        document["webhookTimestamp"] = int(value * 1000)


LINEAR = SignedProvider(
    provider="linear",
    home=__name__,
    scheme=SIGNATURE,
    tolerance=TOLERANCE,
    sent_at=_SentAt(),
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
