"""Push notifications of the Agent2Agent protocol, sent by whoever holds our credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.connectors import bodies
from harn.connectors.bodies import Document
from harn.connectors.interfaces import CREDENTIALS, IConnectorPlugin, IReceiver
from harn.connectors.model import ConnectorContext, Events, Normalized, NormalizedEvent
from harn.connectors.receiver import Receiver
from harn.manifest.interfaces import ISettingsSchema, SettingProblem
from harn.model.event import UNSIGNED
from harn.model.inbound import InboundRequest

# Where each field may lie: the shapes of a notification (task, statusUpdate, artifactUpdate, message) bare or wrapped,
# in the spelling of the protocol or ours. The first place that is there counts; the first of all stands for none.
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
    """Takes the notifications of one trigger; the listener has checked the credentials before."""

    def verify(self, inbound: InboundRequest, now: float) -> None:
        """Check nothing: no signature of the agent's own is configured, our credentials were enough."""

    def normalize(self, inbound: InboundRequest) -> Normalized:
        """Give one event of kind ``push``; a notification is a JSON object, nothing else is."""
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
    """Name the notification: ``a2a.task.<state>``, else ``.artifact``, ``.message`` or ``.update``."""
    state = bodies.word(notification.at(*lifted["task_state"]))
    if state is not None:
        # The protocol writes it with one l; senders write either.
        return "a2a.task.canceled" if state == "cancelled" else f"a2a.task.{state}"
    if notification.at(*lifted["artifact"]) is not None:
        return "a2a.task.artifact"
    return "a2a.task.message" if notification.at("message") is not None else "a2a.task.update"


@implementer(ISettingsSchema)
class NoVerifierYet:
    """Lets ``[triggers.a2a_push]`` be there, and refuses every key of a verifier instead of not checking it."""

    def check(self, table: Mapping[str, Any]) -> tuple[Any, Sequence[SettingProblem]]:
        """Give an empty table, or a problem for each key."""
        problems = [
            SettingProblem(
                key=key,
                message="verifying an agent's own token is not supported yet",
                hint="take it out; the route then asks for our own credentials",
            )
            for key in table
        ]
        return (None, problems) if problems else ({}, ())

    def json_schema(self) -> dict[str, Any]:
        """Allow no key."""
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
