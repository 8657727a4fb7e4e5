"""Sentry: webhooks of an integration: issues, errors, comments, alerts, installations."""

from __future__ import annotations

from harn.connectors.receivers import Example, SignedProvider, always, dotted, header, member
from harn.connectors.signatures import HmacScheme

SIGNATURE = HmacScheme(name="sentry", header="Sentry-Hook-Signature")
"""
The key is the integration's client secret; no time is signed. Source: Sentry, "Integration Platform", "Webhooks".
"""

SENTRY = SignedProvider(
    provider="sentry",
    home=__name__,
    scheme=SIGNATURE,
    kind=dotted(header("Sentry-Hook-Resource"), member("action")),
    identity=header("Request-ID"),
    fields=always(
        action=("action",),
        data=("data",),
        actor=("actor",),
        installation=("installation", "uuid"),
        issue=("data", "issue"),
        error=("data", "error"),
        alert=("data", "metric_alert"),
        triggered_rule=("data", "triggered_rule"),
    ),
    headers={"resource": "sentry-hook-resource", "timestamp": "sentry-hook-timestamp", "request_id": "request-id"},
    example=Example(
        body=b'{"action": "created", "installation": {"uuid": "7a485448-a9e2-4c85-8a3c-4f44175783c9"},'
        b' "data": {"issue": {"id": "1170820242", "title": "ReferenceError"}}, "actor": {"type": "application"}}',
        headers={
            "Content-Type": "application/json",
            "Sentry-Hook-Resource": "issue",
            "Request-ID": "d6a0ab2c-1f1b-4ac5-9f3c-5d2b1a0e7c11",
        },
    ),
)
