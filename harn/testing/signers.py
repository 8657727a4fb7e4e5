"""
Signs requests as providers and our own commands do, for tests and for trying things out.

`signed_request` does it for any provider that comes with harn, and for any that is declared; others are short forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from harn.auth.credentials import sign_request
from harn.connectors.github import SIGNATURE as GITHUB
from harn.connectors.interfaces import ConnectorBinding, ConnectorContext, IConnectorPlugin, IScheme, NormalizedEvent
from harn.connectors.keys import prove
from harn.connectors.receivers import SignedConnector
from harn.connectors.signatures import EXAMPLE_ID, StandardScheme
from harn.connectors.slack import SIGNATURE as SLACK
from harn.connectors.stripe import SIGNATURE as STRIPE
from harn.connectors.webhook import WebhookConnector
from harn.model.exchange import InboundRequest

STANDARD = StandardScheme()


def signed_headers(
    scheme: IScheme, secret: bytes, body: bytes, timestamp: float, content_type: str = "application/json"
) -> dict[str, str]:
    """
    Return the headers of a request that is signed by any scheme, for example ``harn.connectors.slack.SIGNATURE``.

    :param secret: as configured.
    :param timestamp: seconds, Unix.
    """
    return {"Content-Type": content_type, **scheme.sign(scheme.key(secret), body, timestamp)}


def signed_request(
    plugin: IConnectorPlugin,
    secrets: Mapping[str, Sequence[bytes]],
    request: InboundRequest,
    now: float,
    settings: Any = None,
    private_key: bytes | None = None,
) -> InboundRequest:
    """
    Return a request as the sender of ``plugin`` would send it: with what shows who sent it, in headers or the query.

    :param secrets: values by name, as configured; of several values the first is used.
    :param request: what is sent, names of headers in lower case; ``Host`` counts where a sender signs the URL.
    :param now: seconds, Unix.
    :param settings: the provider's table of the trigger, checked.
    :param private_key: the key of a sender that signs with a private one: 32 bytes of Ed25519, or DER of ECDSA.
    :raises ValueError: it cannot be signed here: it needs a private key, or the plugin does not say how its sender
        signs.
    :raises StageFailed: a secret is missing, or not usable.
    """
    connector = _prepared(plugin, secrets, settings)
    if private_key is not None and isinstance(connector, SignedConnector):
        return prove(connector.scheme, private_key, request, now)
    return connector.prove(request, now)


def example_request(
    plugin: IConnectorPlugin,
    secrets: Mapping[str, Sequence[bytes]],
    path: str,
    now: float,
    settings: Any = None,
    kind: str | None = None,
) -> InboundRequest:
    """
    Return a request such as the sender sends, not signed yet; see `signed_request`.

    :param kind: the kind of its event; None for that of the example.
    :raises ValueError: there is no example, or it cannot be of that kind.
    """
    example = _prepared(plugin, secrets, settings).example_of(kind)
    if example is None:
        raise ValueError(f"provider {plugin.provider} has no example of a request; give a body")
    headers = {name.lower(): value for name, value in example.headers.items()}
    return InboundRequest(method="POST", path=path, query="", headers=headers, body=example.body, received_at=now)


def _prepared(
    plugin: IConnectorPlugin, secrets: Mapping[str, Sequence[bytes]], settings: Any
) -> SignedConnector | WebhookConnector:
    binding = ConnectorBinding(
        trigger_id=plugin.provider,
        provider=plugin.provider,
        kind=plugin.kinds[0],
        path="/",
        events=(),
        settings=settings,
        secrets={name: tuple(values) for name, values in secrets.items()},
    )
    connector = plugin.connector(ConnectorContext(clock=Clock(), binding=binding, emit=_emit_nothing))
    if not isinstance(connector, SignedConnector | WebhookConnector):
        raise ValueError(f"provider {plugin.provider} does not say how its sender signs")
    connector.prepare()
    return connector


def _emit_nothing(trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
    return succeed(None)


def sign_github(secret: bytes, body: bytes) -> str:
    """Return the value of ``X-Hub-Signature-256``."""
    return GITHUB.sign(secret, body, 0)[GITHUB.header]


def sign_standard(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """
    Return the value of ``webhook-signature``.

    :param secret: as configured: ``whsec_`` and base64, or base64.
    :param timestamp: seconds, Unix.
    """
    return STANDARD.sign(STANDARD.key(secret), body, timestamp, message_id)["webhook-signature"]


def sign_stripe(secret: bytes, timestamp: int, body: bytes) -> str:
    """Return the value of ``Stripe-Signature``; ``timestamp`` is in seconds, Unix."""
    return STRIPE.sign(secret, body, timestamp)[STRIPE.header]


def sign_slack(secret: bytes, timestamp: int, body: bytes) -> str:
    """Return the value of ``X-Slack-Signature``; ``timestamp`` is in seconds, Unix."""
    return SLACK.sign(secret, body, timestamp)[SLACK.header]


def sign_admin(secret: bytes, method: str, target: str, body: bytes, now: float) -> str:
    """Return the value of ``Authorization``; ``target`` is the path with its query, ``now`` in seconds, Unix."""
    return sign_request(secret, method, target, body, now)


def github_headers(
    secret: bytes, body: bytes, event: str = "push", delivery: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
) -> dict[str, str]:
    """Return the headers of a delivery of GitHub in JSON."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": sign_github(secret, body),
    }


def standard_headers(secret: bytes, body: bytes, timestamp: int, message_id: str = EXAMPLE_ID) -> dict[str, str]:
    """Return the headers of a Standard Webhooks delivery."""
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign_standard(secret, message_id, timestamp, body),
    }


def svix_headers(secret: bytes, body: bytes, timestamp: int, message_id: str = EXAMPLE_ID) -> dict[str, str]:
    """Return the same under the names that Svix uses."""
    headers = standard_headers(secret, body, timestamp, message_id)
    return {name.replace("webhook-", "svix-"): value for name, value in headers.items()}


def stripe_headers(secret: bytes, body: bytes, timestamp: int) -> dict[str, str]:
    """Return the headers of an event of Stripe."""
    return signed_headers(STRIPE, secret, body, timestamp)


def slack_headers(secret: bytes, body: bytes, timestamp: int, content_type: str = "application/json") -> dict[str, str]:
    """Return the headers of a request of Slack; commands and interactions are ``application/x-www-form-urlencoded``."""
    return signed_headers(SLACK, secret, body, timestamp, content_type)


def admin_headers(secret: bytes, method: str, target: str, body: bytes, now: float) -> dict[str, str]:
    """Return the headers of a signed request to our admin API."""
    return {"Content-Type": "application/json", "Authorization": sign_admin(secret, method, target, body, now)}
