"""
Requests as Slack posts them: events, slash commands and interactions.

Sources: Slack, "Events API", "Slash commands", "Interaction payloads".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from harn.connectors.messages import Example
from harn.wire import canonical_json

SLACK: Mapping[str, Mapping[str, Any]] = {
    "message.channels": {"channel_type": "channel", "text": "Good morning", "ts": "1700000000.000200"},
    "app_mention": {"text": "<@U0LAN0Z89> hello", "ts": "1700000000.000300"},
    "reaction_added": {
        "reaction": "thumbsup",
        "item": {"type": "message", "channel": "C2147483705", "ts": "1700000000.000200"},
        "item_user": "U222222222",
        "event_ts": "1700000000.000400",
    },
}

INTERACTIONS = (
    *("block_actions", "block_suggestion", "message_action", "shortcut", "view_closed", "view_submission"),
    *("dialog_submission", "interactive_message"),
)
CHANNELS = {"message.channels": "channel", "message.groups": "group", "message.im": "im", "message.mpim": "mpim"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def slack_example(kind: str) -> Example:
    """Return an event of Slack, a slash command (``/deploy``), or an interaction (``block_actions``)."""
    if kind.startswith("/"):
        fields = {
            "token": "XXYYZZ",
            "team_id": "T061EG9R6",
            "team_domain": "octo",
            "channel_id": "C2147483705",
            "channel_name": "general",
            "user_id": "U061F7AUR",
            "user_name": "octocat",
            "command": kind,
            "text": "hello",
            "api_app_id": "A0PNCHHK2",
            "response_url": "https://hooks.slack.com/commands/T061EG9R6/1/x",
            "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        }
        return Example(body=urlencode(fields).encode("ascii"), headers=_FORM)
    if kind in INTERACTIONS:
        return Example(body=urlencode({"payload": canonical_json(_interaction(kind)).decode()}).encode(), headers=_FORM)
    event = {"type": kind.partition(".")[0], "user": "U061F7AUR", "channel": "C2147483705", **SLACK.get(kind, {})}
    if kind in CHANNELS:
        event |= {**SLACK["message.channels"], "channel_type": CHANNELS[kind]}
    document = {
        "type": "event_callback",
        "token": "XXYYZZ",
        "team_id": "T061EG9R6",
        "api_app_id": "A0PNCHHK2",
        "event": event if kind in CHANNELS else {**event, "type": kind},
        "event_id": "Ev0PV52K25",
        "event_time": 1700000000,
    }
    return Example(body=canonical_json(document), headers={"Content-Type": "application/json"})


def _interaction(kind: str) -> Mapping[str, Any]:
    """Return an interaction of a user: with a button, a menu, a shortcut or a modal."""
    action = {"type": "button", "action_id": "confirm", "block_id": "b1", "value": "yes", "action_ts": "1700000000.1"}
    return {
        "type": kind,
        "user": {"id": "U061F7AUR", "username": "octocat", "team_id": "T061EG9R6"},
        "team": {"id": "T061EG9R6", "domain": "octo"},
        "channel": {"id": "C2147483705", "name": "general"},
        "api_app_id": "A0PNCHHK2",
        "token": "XXYYZZ",
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        "callback_id": "deploy",
        "response_url": "https://hooks.slack.com/actions/T061EG9R6/1/x",
        "actions": [action],
        "view": {"id": "V1", "type": "modal", "callback_id": "deploy", "state": {"values": {}}},
    }
