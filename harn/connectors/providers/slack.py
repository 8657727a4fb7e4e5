"""Slack: the Events API, slash commands, and interactions (buttons, menus, shortcuts, modals)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.connectors.bodies import word
from harn.connectors.interfaces import Respond
from harn.connectors.receivers import Example, Message, Path, SignedProvider
from harn.connectors.signatures import HmacScheme, Part
from harn.errors import PayloadInvalid

SIGNATURE = HmacScheme(
    name="slack",
    header="X-Slack-Signature",
    timestamp_header="X-Slack-Request-Timestamp",
    prefix="v0=",
    signed=(b"v0:", Part.TIMESTAMP, b":", Part.BODY),
)
"""Source: Slack, "Verifying requests from Slack"."""

_CHANNELS = {"channel": "channels", "group": "groups"}
_COMMAND = ("command", "text", "user_id", "user_name", "channel_id", "channel_name", "team_id", "team_domain")
_INTERACTION = ("actions", "view", "message", "callback_id", "response_url", "trigger_id", "api_app_id", "container")
_EVENT = ("subtype", "channel", "channel_type", "user", "text", "ts", "thread_ts", "event_ts", "reaction", "item")
_MORE = ("item_user", "tab", "view", "assistant_thread", "context")


def _kind(message: Message) -> Any:
    """Return the command, or the type: of an event the inner one, of a message with its channel's type."""
    if message.body_format == "fields":
        return message.at("command")
    outer = message.at("type")
    if outer != "event_callback":
        return outer
    kind, channel = message.at("event", "type"), word(message.at("event", "channel_type"))
    return f"message.{_CHANNELS.get(channel, channel)}" if kind == "message" and channel else kind


def _fields(message: Message) -> Mapping[str, Path]:
    """Return the fields that messages of each shape have."""
    if message.body_format == "fields":
        return {name: (name,) for name in (*_COMMAND, "response_url", "trigger_id", "api_app_id")}
    if message.body_format == "form":
        ids = {f"{name}_id": (name, "id") for name in ("user", "channel", "team")}
        return {**{name: (name,) for name in _INTERACTION}, **ids}
    return {
        **{name: ("event", name) for name in (*_EVENT, *_MORE)},
        **{name: (name,) for name in ("event_id", "api_app_id", "team_id")},
        "channel_id": ("event", "channel"),
        "user_id": ("event", "user"),
    }


def _handshake(message: Message) -> Respond | None:
    """Answer the check of a request URL with its challenge, and that of its certificate with an empty body."""
    if message.at("type") == "url_verification":
        challenge = word(message.at("challenge"))
        if challenge is None:
            raise PayloadInvalid("a url_verification must have a challenge of at most 256 characters")
        return Respond(status=200, body=challenge.encode(), content_type="text/plain; charset=utf-8")
    return _EMPTY if message.body_format == "fields" and message.at("ssl_check") else None


_EMPTY = Respond(status=200, body=b"", content_type="text/plain; charset=utf-8")

SLACK = SignedProvider(
    provider="slack",
    home=__name__,
    scheme=SIGNATURE,
    kind=_kind,
    identity=lambda message: message.at("event_id") or message.at("trigger_id"),
    occurred_at=lambda message: message.at("event_time"),
    fields=_fields,
    headers={"retry_num": "x-slack-retry-num", "retry_reason": "x-slack-retry-reason"},
    handshake=_handshake,
    # Slack shows the answer to a command or an interaction to the user: it must be empty.
    acknowledgement=lambda message: None if message.body_format == "json" else _EMPTY,
    final=b"X-Slack-No-Retry: 1\r\n",
    example=Example(
        body=b'{"type": "event_callback", "team_id": "T1", "api_app_id": "A1", "event_id": "Ev1", '
        b'"event_time": 1700000000, "event": {"type": "app_mention", "user": "U1", "text": "<@U0> hello", '
        b'"ts": "1.2", "channel": "C1"}}'
    ),
)
