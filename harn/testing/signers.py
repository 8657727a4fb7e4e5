"""Signs requests as providers and our own commands do, for tests and for trying things out."""

from __future__ import annotations

from harn.auth.credentials import sign_request
from harn.connectors.github import SIGNATURE as GITHUB
from harn.connectors.interfaces import IScheme
from harn.connectors.signatures import EXAMPLE_ID, StandardScheme
from harn.connectors.slack import SIGNATURE as SLACK
from harn.connectors.stripe import SIGNATURE as STRIPE

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
