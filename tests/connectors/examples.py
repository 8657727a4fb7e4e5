"""Cases of our connectors, and requests to them, for the tests of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock

from harn.connectors.interfaces import ConnectorBinding, ConnectorContext
from harn.connectors.providers.a2a_push import A2aPushPlugin
from harn.connectors.providers.github import GITHUB
from harn.connectors.providers.webhook import WebhookPlugin
from harn.model.exchange import InboundRequest
from harn.testing.connectors import ConnectorCase, OpenGate
from harn.testing.signers import github_headers, slack_headers, standard_headers, stripe_headers

NOW = 1_700_000_000.0
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"action": "opened", "issue": {"number": 7}, "installation": {"id": 42}}'


def request(body: bytes, headers: Mapping[str, str]) -> InboundRequest:
    """Make a request as the listener would hand it over."""
    lower = {name.lower(): value for name, value in headers.items()}
    return InboundRequest(method="POST", path="/x", query="", headers=lower, body=body, received_at=NOW)


def binding(provider: str, settings: Any = None, kind: str = "webhook", *secrets: bytes) -> ConnectorBinding:
    """Make a binding whose signing secret has the given values."""
    return ConnectorBinding(
        trigger_id="t1",
        provider=provider,
        kind=kind,
        path="/x",
        events=(),
        settings=settings,
        secrets={"signing_secret": secrets} if secrets else {},
    )


def connector(plugin: Any, bound: ConnectorBinding) -> Any:
    """Make a connector and prepare it."""
    made = plugin.connector(ConnectorContext(clock=Clock(), binding=bound, gate=OpenGate()))
    made.prepare()
    return made


def github_case() -> ConnectorCase:
    """Return a case of GitHub, with an issue that was opened."""
    return ConnectorCase(
        plugin=GITHUB,
        binding=binding("github", None, "webhook", SECRET),
        request=request(BODY, github_headers(SECRET, BODY, "issues")),
        signature_headers=("x-hub-signature-256",),
        now=NOW,
    )


def webhook_case(scheme: str) -> ConnectorCase:
    """Return a case of the generic webhook, by one of the schemes."""
    headers, names = {
        "standard": (
            standard_headers(SECRET, BODY, int(NOW)),
            ("webhook-id", "webhook-timestamp", "webhook-signature"),
        ),
        "stripe": (stripe_headers(SECRET, BODY, int(NOW)), ("stripe-signature",)),
        "github": (github_headers(SECRET, BODY), ("x-hub-signature-256",)),
        "slack": (slack_headers(SECRET, BODY, int(NOW)), ("x-slack-request-timestamp", "x-slack-signature")),
    }[scheme]
    return ConnectorCase(
        plugin=WebhookPlugin(),
        binding=binding("webhook", {"signature_scheme": scheme}, "webhook", SECRET),
        request=request(BODY, headers),
        signature_headers=names,
        now=NOW,
    )


def a2a_push_case() -> ConnectorCase:
    """Return a case of a push notification about a task."""
    body = b'{"id": "task-1", "status": {"state": "completed"}}'
    return ConnectorCase(
        plugin=A2aPushPlugin(),
        binding=binding("a2a-push", None, "a2a-push"),
        request=request(body, {"X-A2A-Delivery": "d-1"}),
        now=NOW,
    )
