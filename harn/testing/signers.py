"""
Requests as providers and our own commands sign them, for tests and for trying things out; and example keys.

`signed_request` signs for any provider that comes with harn, and for any that is declared; others are short forms. The
private keys here are public knowledge.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.task import Clock

from harn.auth.credentials import sign_request
from harn.connectors.gate import Gate
from harn.connectors.interfaces import ConnectorBinding, ConnectorContext, IConnectorPlugin, IScheme
from harn.connectors.providers.github import SIGNATURE as GITHUB
from harn.connectors.providers.slack import SIGNATURE as SLACK
from harn.connectors.providers.stripe import SIGNATURE as STRIPE
from harn.connectors.public_keys import Algorithm, PublicKeyScheme
from harn.connectors.receivers import SignedConnector
from harn.connectors.signatures import EXAMPLE_ID, StandardScheme
from harn.connectors.signing_keys import prove
from harn.model.exchange import InboundRequest
from harn.wire import canonical_json

ED25519_PRIVATE = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
ED25519_PUBLIC = b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
"""The pair of RFC 8032, section 7.1, test 1; the public key as Discord writes it."""

ECDSA_PRIVATE = base64.b64decode(
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgya+p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyGh"
    "RANCAARg/tS6JVqdMclh63TGNW1owEm4kjth+mzmaWIuYPKftnkD/hAIuLyZpBrp6VYovGTy8bIMLX6fUXejwpTURiKZ"
)
ECDSA_PUBLIC = (
    b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJ"
    b"I7Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ=="
)
"""The pair of RFC 6979, appendix A.2.5 (P-256); the public key as SendGrid writes it."""

STANDARD_SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""A secret that is base64, as Standard Webhooks requires."""


def example_secret(scheme: Any) -> tuple[bytes, bytes]:
    """Return a secret of a scheme, as it is configured, and the key with which its sender signs."""
    if not isinstance(scheme, PublicKeyScheme):
        key: bytes = scheme.key(STANDARD_SECRET)
        return STANDARD_SECRET, key
    if scheme.algorithm is Algorithm.ED25519:
        return ED25519_PUBLIC, ED25519_PRIVATE
    return ECDSA_PUBLIC, ECDSA_PRIVATE


def other_secret(scheme: Any) -> bytes:
    """Return another secret of a scheme, which belongs to no key here."""
    if not isinstance(scheme, PublicKeyScheme):
        return b"b3RoZXItc2VjcmV0"
    if scheme.algorithm is Algorithm.ED25519:
        return b"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    return (
        b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJu/OvQ7p40pmkYfhizqRIrL3M5"
        b"RbZJzJ+fkh6fna2BKQI4venMe7Mw0VDGdwTdJa5wVSBXRLbzG/QHB0WHLQ5g=="
    )


STANDARD = StandardScheme()


def signed_headers(
    scheme: IScheme, secret: bytes, body: bytes, timestamp: float, content_type: str = "application/json"
) -> dict[str, str]:
    """
    Return the headers of a request that is signed by any scheme, such as ``harn.connectors.providers.slack.SIGNATURE``.

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
    trigger_id: str | None = None,
) -> InboundRequest:
    """
    Return a request as the sender of ``plugin`` would send it: with what shows who sent it, in headers or the query.

    :param secrets: values by name, as configured; of several values the first is used.
    :param request: what is sent, names of headers in lower case; ``Host`` counts where a sender signs the URL.
    :param now: seconds, Unix.
    :param settings: the provider's table of the trigger, checked.
    :param private_key: the key of a sender that signs with a private one: 32 bytes of Ed25519, or DER of ECDSA.
    :param trigger_id: the trigger that errors name; None for the provider.
    :raises ValueError: it cannot be signed here: it needs a private key, or the plugin does not say how its sender
        signs.
    :raises StageFailed: a secret is missing, or not usable.
    """
    connector = _prepared(plugin, secrets, settings, trigger_id)
    if private_key is not None and isinstance(connector, SignedConnector):
        return prove(connector.scheme, private_key, request, now)
    proven: InboundRequest = connector.prove(request, now)
    return proven


def example_request(
    plugin: IConnectorPlugin,
    secrets: Mapping[str, Sequence[bytes]],
    path: str,
    now: float,
    settings: Any = None,
    kind: str | None = None,
) -> InboundRequest:
    """
    Return a request such as the sender sends at ``now`` (seconds, Unix), not signed yet; see `signed_request`.

    :param kind: the kind of its event; None for that of the example.
    :raises ValueError: there is no example, or it cannot be of that kind.
    """
    connector = _prepared(plugin, secrets, settings)
    example = connector.example_of(kind)
    if example is None:
        raise ValueError(f"provider {plugin.provider} has no example of a request; give a body (harn send: --data)")
    headers, body = {name.lower(): value for name, value in example.headers.items()}, example.body
    put = getattr(connector.sent_at, "put", None) if isinstance(connector, SignedConnector) else None
    if put is not None:
        document = msgspec.json.decode(body)
        put(now, document)
        body = canonical_json(document)
    return InboundRequest(method="POST", path=path, query="", headers=headers, body=body, received_at=now)


def _prepared(
    plugin: IConnectorPlugin, secrets: Mapping[str, Sequence[bytes]], settings: Any, trigger_id: str | None = None
) -> Any:
    binding = ConnectorBinding(
        trigger_id=trigger_id or plugin.provider,
        provider=plugin.provider,
        kind=plugin.kinds[0],
        path="/",
        events=(),
        settings=settings,
        secrets={name: tuple(values) for name, values in secrets.items()},
    )
    connector = plugin.connector(ConnectorContext(clock=Clock(), binding=binding, gate=Gate()))
    if not hasattr(connector, "prove"):
        raise ValueError(f"provider {plugin.provider} does not say how its sender signs")
    connector.prepare()
    return connector


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
