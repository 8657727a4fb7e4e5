"""Discord: interactions (commands, components, modals) and webhook events of an app."""

from __future__ import annotations

from harn.connectors.bodies import word
from harn.connectors.messages import json_answer
from harn.connectors.public_keys import Algorithm, PublicKeyScheme
from harn.connectors.receivers import Example, Message, SignedProvider, always, member

SIGNATURE = PublicKeyScheme(
    name="discord",
    header="X-Signature-Ed25519",
    timestamp_header="X-Signature-Timestamp",
    algorithm=Algorithm.ED25519,
)
"""The secret is the app's public key. Source: Discord, "Setting Up an Endpoint", "Validating Security Headers"."""

_KINDS = {2: "application_command", 3: "message_component", 4: "application_command_autocomplete", 5: "modal_submit"}
_NOTHING, _PONG, _THINKING = json_answer(b"", 204), json_answer(b'{"type":1}'), json_answer(b'{"type":5}')
_NO_CHOICES = json_answer(b'{"type":8,"data":{"choices":[]}}')
# A PING is answered with a PONG, that of webhook events with nothing.
_PINGS = {0: _NOTHING, 1: _PONG}
# Once the event is stored: the user sees that the app thinks, or nothing; no choices.
_ANSWERS = {2: _THINKING, 3: json_answer(b'{"type":6}'), 4: _NO_CHOICES, 5: _THINKING}


def _type(message: Message) -> int:
    """Return the type of an interaction, 0 for a PING of webhook events, -1 for anything else."""
    number = message.at("type")
    return number if type(number) is int and message.at("event") is None else -1


def _kind(message: Message) -> str | None:
    """Return the type's name; of a command with the command's: ``application_command.deploy``."""
    event, name = word(message.at("event", "type")), word(message.at("data", "name"))
    kind = _KINDS.get(_type(message)) if event is None else event.lower()
    return f"{kind}.{name}" if kind and name else kind


DISCORD = SignedProvider(
    provider="discord",
    home=__name__,
    scheme=SIGNATURE,
    kind=_kind,
    identity=member("id"),
    occurred_at=member("event", "timestamp"),
    fields=always(
        *("data", "member", "user", "message", "guild_id", "channel_id", "application_id"),
        interaction_token=("token",),
        event_data=("event", "data"),
    ),
    handshake=lambda message: _PINGS.get(_type(message)),
    acknowledgement=lambda message: _ANSWERS.get(_type(message), _NOTHING),
    example=Example(
        body=b'{"type": 2, "id": "846462639134605312", "application_id": "1", "token": "A", "guild_id": "2",'
        b' "channel_id": "3", "member": {"user": {"id": "5"}}, "data": {"id": "4", "name": "deploy", "type": 1}}'
    ),
)
