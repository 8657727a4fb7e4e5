"""Discord: interactions (commands, components, modals) and webhook events of an app."""

from __future__ import annotations

from harn.connectors.bodies import word
from harn.connectors.interfaces import Respond
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
# What is answered once the event is stored: the user sees that the app thinks, or nothing; no choices.
_BODIES = {2: b'{"type":5}', 3: b'{"type":6}', 4: b'{"type":8,"data":{"choices":[]}}', 5: b'{"type":5}'}


def _type(message: Message) -> int | None:
    """Return the type of an interaction, 0 for a PING of webhook events, None for anything else."""
    number = message.at("type")
    return number if type(number) is int and message.at("event") is None else None


def _kind(message: Message) -> str | None:
    """Return the type's name; of a command with the command's: ``application_command.deploy``."""
    event, name = word(message.at("event", "type")), word(message.at("data", "name"))
    kind = _KINDS.get(_type(message) or 0) if event is None else event.lower()
    return f"{kind}.{name}" if kind and name else kind


def _answer(body: bytes, status: int = 200) -> Respond:
    return Respond(status=status, body=body, content_type="application/json")


_NOTHING = _answer(b"", 204)
_ANSWERS = {number: _answer(body) for number, body in _BODIES.items()}
_PINGS = {0: _NOTHING, 1: _answer(b'{"type":1}')}


def _handshake(message: Message) -> Respond | None:
    """Answer a PING: of interactions with a PONG, of webhook events with nothing."""
    number = _type(message)
    return None if number is None else _PINGS.get(number)


_FIELDS = always(
    **{name: (name,) for name in ("data", "member", "user", "message", "guild_id", "channel_id", "application_id")},
    interaction_token=("token",),
    event_data=("event", "data"),
)

DISCORD = SignedProvider(
    provider="discord",
    home=__name__,
    scheme=SIGNATURE,
    kind=_kind,
    identity=member("id"),
    occurred_at=member("event", "timestamp"),
    fields=_FIELDS,
    handshake=_handshake,
    acknowledgement=lambda message: _ANSWERS.get(_type(message) or 0, _NOTHING),
    example=Example(
        body=b'{"type": 2, "id": "846462639134605312", "application_id": "1", "token": "A", "guild_id": "2",'
        b' "channel_id": "3", "member": {"user": {"id": "5"}}, "data": {"id": "4", "name": "deploy", "type": 1}}'
    ),
)
