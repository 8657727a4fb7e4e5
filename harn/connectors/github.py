"""GitHub: webhooks of repositories, organizations and apps, in JSON or form encoding."""

from __future__ import annotations

import re
from collections.abc import Mapping

from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.connectors import bodies
from harn.connectors.interfaces import (
    PUBLIC,
    ConnectorContext,
    Events,
    IConnectorPlugin,
    IEarlyReceiver,
    Normalized,
    NormalizedEvent,
)
from harn.connectors.receivers import Receiver
from harn.connectors.signatures import HmacScheme
from harn.errors import PayloadInvalid
from harn.model.exchange import InboundRequest

SECRET = "signing_secret"  # noqa: S105 - the name of a secret, not a secret

SIGNATURE = HmacScheme(name="github", header="X-Hub-Signature-256", prefix="sha256=")
"""No time is signed: a captured request stays valid. Source: GitHub, "Validating webhook deliveries"."""

_EVENT = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)

_COMMON = {"action": ["action"], "installation_id": ["installation", "id"]}

# Fields of each event beside the common ones; the names are those of the body.
_LIFTED: Mapping[str, dict[str, list[str]]] = {
    event: _COMMON | {name: [name] for name in names}
    for event, names in {
        "issues": ("issue",),
        "pull_request": ("pull_request",),
        "issue_comment": ("issue", "comment"),
        "pull_request_review": ("pull_request", "review"),
        "push": ("commits", "distinct_size"),
        "workflow_run": ("workflow_run",),
        "deployment_status": ("deployment_status", "deployment"),
        "check_run": ("check_run",),
    }.items()
}


@implementer(IEarlyReceiver)
class GithubConnector(Receiver):
    """Receives the webhooks of one trigger."""

    def prepare(self) -> None:
        """Prepare the secrets."""
        self._use_secret(SECRET, SIGNATURE.key)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check that ``X-Hub-Signature-256`` is there."""
        SIGNATURE.check_headers(headers)

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check ``X-Hub-Signature-256`` over the raw body."""
        SIGNATURE.verify(self._keys, inbound.headers, inbound.body, now)

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """
        Return one event: ``<X-GitHub-Event>.<action>``, or the bare event where the body has no action.

        The body is checked in full, so that a handler can read every body that is accepted.
        """
        headers, body = inbound.headers, inbound.body
        event = headers.get("x-github-event")
        if event is None or not _EVENT.fullmatch(event):
            raise PayloadInvalid("the header X-GitHub-Event is missing or malformed; is this a webhook of GitHub?")
        body_format, document = bodies.read_message(headers, body)
        if body_format == "fields":
            raise PayloadInvalid("the form has no field payload, which holds the event")
        action = bodies.word(document.at("action"))
        delivery = bodies.word(headers.get("x-github-delivery"))
        normalized = NormalizedEvent(
            kind=event if action is None else f"{event}.{action}",
            dedupe_key=delivery or bodies.body_digest(body),
            payload={"event": event, "delivery_id": delivery},
            lifted=_LIFTED.get(event, _COMMON),
            body_format=body_format,
            occurred_at=bodies.occurred_at(document.at("timestamp")),
        )
        return Events((normalized,))


@implementer(IPlugin, IConnectorPlugin)
class GithubPlugin:
    """The provider ``github``."""

    provider = "github"
    kinds = ("webhook",)
    table = None
    schema = None
    required_secrets = (SECRET,)
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context: ConnectorContext) -> GithubConnector:
        """Make the connector of one trigger."""
        return GithubConnector(context)
