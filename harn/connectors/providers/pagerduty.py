"""PagerDuty: webhooks of version 3, whose kinds are such as ``incident.triggered``."""

from __future__ import annotations

from harn.connectors.receivers import Example, SignedProvider, always, member
from harn.connectors.signatures import HmacScheme

SIGNATURE = HmacScheme(name="pagerduty", header="X-PagerDuty-Signature", prefix="v1=", separator=",")
"""
One signature for each secret of the subscription; no time is signed. Source: PagerDuty, "Verifying Signatures".
"""

PAGERDUTY = SignedProvider(
    provider="pagerduty",
    home=__name__,
    scheme=SIGNATURE,
    kind=member("event", "event_type"),
    identity=member("event", "id"),
    occurred_at=member("event", "occurred_at"),
    fields=always(
        event_id=("event", "id"),
        resource_type=("event", "resource_type"),
        agent=("event", "agent"),
        client=("event", "client"),
        data=("event", "data"),
    ),
    headers={"subscription_id": "x-webhook-subscription"},
    example=Example(
        body=b'{"event": {"id": "5ac64822-4adc-4fda-ade0-410becf0de4f", "event_type": "incident.triggered",'
        b' "resource_type": "incident", "occurred_at": "2020-10-02T18:45:22.169Z",'
        b' "data": {"id": "PGR0VU2", "type": "incident", "title": "A little bump in the road"}}}'
    ),
)
