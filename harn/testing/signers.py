"""Signs requests as providers and our own commands do, for tests and for trying things out."""

from __future__ import annotations

from harn.auth.signed_requests import sign_request
from harn.connectors.signatures import github, slack, standard, stripe


def sign_github(secret: bytes, body: bytes) -> str:
    """Give the value of ``X-Hub-Signature-256``."""
    return github.sign(secret, body).decode("ascii")


def sign_standard(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """
    Give the value of ``webhook-signature``.

    :param secret: as configured: ``whsec_`` and base64, or base64.
    :param timestamp: seconds, Unix.
    """
    return "v1," + standard.sign(standard.decode_secret(secret), message_id, str(timestamp), body).decode("ascii")


def sign_stripe(secret: bytes, timestamp: int, body: bytes) -> str:
    """Give the value of ``Stripe-Signature``; ``timestamp`` is in seconds, Unix."""
    return f"t={timestamp},v1=" + stripe.sign(secret, str(timestamp), body).decode("ascii")


def sign_slack(secret: bytes, timestamp: int, body: bytes) -> str:
    """Give the value of ``X-Slack-Signature``; ``timestamp`` is in seconds, Unix."""
    return slack.sign(secret, str(timestamp), body).decode("ascii")


def sign_admin(secret: bytes, method: str, target: str, body: bytes, now: float) -> str:
    """Give the value of ``Authorization``; ``target`` is the path with its query, ``now`` in seconds, Unix."""
    return sign_request(secret, method, target, body, now)


def github_headers(
    secret: bytes, body: bytes, event: str = "push", delivery: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
) -> dict[str, str]:
    """Give the headers of a delivery of GitHub in JSON."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": sign_github(secret, body),
    }


def standard_headers(
    secret: bytes, body: bytes, timestamp: int, message_id: str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
) -> dict[str, str]:
    """Give the headers of a Standard Webhooks delivery."""
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign_standard(secret, message_id, timestamp, body),
    }


def svix_headers(
    secret: bytes, body: bytes, timestamp: int, message_id: str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
) -> dict[str, str]:
    """Give the same under the names that Svix uses."""
    headers = standard_headers(secret, body, timestamp, message_id)
    return {name.replace("webhook-", "svix-"): value for name, value in headers.items()}


def stripe_headers(secret: bytes, body: bytes, timestamp: int) -> dict[str, str]:
    """Give the headers of an event of Stripe."""
    return {"Content-Type": "application/json", "Stripe-Signature": sign_stripe(secret, timestamp, body)}


def slack_headers(secret: bytes, body: bytes, timestamp: int) -> dict[str, str]:
    """Give the headers of a request of Slack."""
    return {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": str(timestamp),
        "X-Slack-Signature": sign_slack(secret, timestamp, body),
    }


def admin_headers(secret: bytes, method: str, target: str, body: bytes, now: float) -> dict[str, str]:
    """Give the headers of a signed request to our admin API."""
    return {"Content-Type": "application/json", "Authorization": sign_admin(secret, method, target, body, now)}
