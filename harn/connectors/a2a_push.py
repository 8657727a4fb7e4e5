"""Push notifications of the Agent2Agent protocol, from senders with the server's own credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.connectors import bodies
from harn.connectors.bodies import Document
from harn.connectors.interfaces import (
    CREDENTIALS,
    ConnectorContext,
    Events,
    IConnectorPlugin,
    IReceiver,
    Normalized,
    NormalizedEvent,
)
from harn.connectors.receivers import Receiver
from harn.manifest.interfaces import ISettingsSchema, SettingProblem
from harn.model.event import UNSIGNED
from harn.model.exchange import InboundRequest

# The paths of each field: the shapes of a notification (task, statusUpdate, artifactUpdate, message), bare or wrapped,
# in the protocol's spelling or harn's. The first path that exists is used; without any, the first of the list.
_PLACES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "task_id": (
        ("task_id",),
        ("taskId",),
        ("statusUpdate", "taskId"),
        ("artifactUpdate", "taskId"),
        ("task", "id"),
        ("message", "taskId"),
        ("id",),
    ),
    "task_state": (
        ("task_state",),
        ("status", "state"),
        ("statusUpdate", "status", "state"),
        ("task", "status", "state"),
    ),
    "artifact": (("artifact",), ("artifactUpdate", "artifact")),
    "sender": (("sender",),),
}


@implementer(IReceiver)
class A2aPushConnector(Receiver):
    """Receives the notifications of one trigger; the listener has checked the credentials before."""

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check nothing: the agent's own signature is not configured, and harn's credentials were checked before."""

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """Return one event of kind ``push``; a notification must be a JSON object."""
        body = inbound.body
        bodies.check_charset(inbound.headers, body)
        notification = bodies.read_object(body)
        lifted = {}
        for name, places in _PLACES.items():
            place = next((place for place in places if notification.at(*place) is not None), places[0])
            lifted[name] = list(place)
        event = NormalizedEvent(
            kind="push",
            dedupe_key=bodies.word(inbound.headers.get("x-a2a-delivery")) or bodies.body_digest(body),
            payload={"kind": _kind(notification, lifted)},
            lifted=lifted,
            signature_status=UNSIGNED,
        )
        return Events((event,))


def _kind(notification: Document, lifted: Mapping[str, Sequence[str]]) -> str:
    """Return the notification's name: ``a2a.task.<state>``, else ``.artifact``, ``.message`` or ``.update``."""
    state = bodies.word(notification.at(*lifted["task_state"]))
    if state is not None:
        # The protocol writes it with one l; senders write either.
        return "a2a.task.canceled" if state == "cancelled" else f"a2a.task.{state}"
    if notification.at(*lifted["artifact"]) is not None:
        return "a2a.task.artifact"
    return "a2a.task.message" if notification.at("message") is not None else "a2a.task.update"


@implementer(ISettingsSchema)
class NoVerifierYet:
    """Accepts ``[triggers.a2a_push]``, but refuses every key of a verifier, which would not be checked."""

    def check(self, table: Mapping[str, Any]) -> tuple[Any, Sequence[SettingProblem]]:
        """Return an empty table, or a problem for each key."""
        problems = [
            SettingProblem(
                key=key,
                message="verifying an agent's own token is not supported yet",
                hint="remove it; the route then requires harn's own credentials",
            )
            for key in table
        ]
        return (None, problems) if problems else ({}, ())

    def json_schema(self) -> dict[str, Any]:
        """Return a schema without keys."""
        return {"type": "object", "properties": {}, "additionalProperties": False}


@implementer(IPlugin, IConnectorPlugin)
class A2aPushPlugin:
    """The provider ``a2a-push``."""

    provider = "a2a-push"
    kinds = ("a2a-push",)
    table = "a2a_push"
    schema = NoVerifierYet()
    required_secrets = ()
    optional_secrets = ()
    authentication = CREDENTIALS

    def connector(self, context: ConnectorContext) -> A2aPushConnector:
        """Make the connector of one trigger."""
        return A2aPushConnector(context)
