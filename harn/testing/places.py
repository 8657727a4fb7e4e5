"""Where requests of providers that are not declared have their kind and their identity, to be written there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from harn.connectors.interfaces import IConnectorPlugin

TASK = "a2a.task."
"""The beginning of the kinds of notifications about the state of a task."""


class Place(Protocol):
    """One place of a request."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` there."""


class Places(Struct, frozen=True):
    """The places of one provider."""

    kind: Place
    identity: Place


class WebhookKind:
    """The kind of the generic webhook."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` there."""
        document["type"] = value


class WebhookIdentity:
    """The identity of the generic webhook, by each of its schemes."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` there."""
        headers["webhook-id"] = headers["x-github-delivery"] = value
        document["id"] = value


class NotificationKind:
    """The kind of a notification of an agent: the state of its task."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """
        Write the state there.

        :raises ValueError: it is the kind of a notification about something else.
        """
        if not value.startswith(TASK):
            raise ValueError(f"a kind of a2a-push is {TASK} and a state, such as {TASK}working, got {value!r}")
        state = value.removeprefix(TASK).upper().replace("-", "_")
        given = document.get("statusUpdate")
        update = dict(given) if isinstance(given, dict) else {"taskId": "task-1"}
        document["statusUpdate"] = {**update, "status": {"state": f"TASK_STATE_{state}"}}


class NotificationIdentity:
    """The identity of a notification of an agent."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` there."""
        headers["x-a2a-delivery"] = value


class StandardIdentity:
    """The identity of a Standard Webhook."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` there."""
        headers["webhook-id"] = value


class SlackIdentity:
    """The identity of an event of Slack, or of a command or an interaction."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` there."""
        document["event_id" if document.get("type") == "event_callback" else "trigger_id"] = value


class CloudEventIdentity:
    """The identity of a CloudEvent, in structured or binary mode."""

    def put(self, value: str, headers: dict[str, str], document: dict[str, Any]) -> None:
        """Write ``value`` there."""
        if "ce-id" in headers:
            headers["ce-id"] = value
        else:
            document["id"] = value


USUAL = Places(WebhookKind(), WebhookIdentity())
_PLACES: Mapping[str, Places] = {
    "a2a-push": Places(NotificationKind(), NotificationIdentity()),
    "cloudevents": Places(WebhookKind(), CloudEventIdentity()),
    "slack": Places(WebhookKind(), SlackIdentity()),
    "standard": Places(WebhookKind(), StandardIdentity()),
}


def places_of(plugin: IConnectorPlugin) -> Places:
    """Return the places of a provider; those of the generic webhook where no others are known."""
    return _PLACES.get(plugin.provider, USUAL)
