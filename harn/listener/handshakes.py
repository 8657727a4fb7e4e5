"""Secrets that senders bring with a handshake: recorded for the operator, who sets them."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from harn.lifecycle import HandshakeCaptured
from harn.server import Server

KIND = "handshake_captured"

log = Logger(namespace="harn.listener")


def topic_of(provider: str) -> str:
    """Return the topic on which a provider's handshakes are recorded."""
    return f"connectors.{provider}.webhook.handshake"


class Handshakes:
    """Records each handshake that brought a secret, and logs where it can be read; the secret itself is not logged."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def captured(self, event: HandshakeCaptured) -> None:
        """Called with a handshake, once it is answered."""
        topic = topic_of(event.provider)
        payload = {"trigger_id": event.trigger_id, "provider": event.provider, "value": event.secret}
        noting = Deferred.fromCoroutine(self._server.note(topic, KIND, payload))
        noting.addErrback(lambda failure: log.failure("a handshake was not recorded", failure))
        log.warn(
            "trigger {trigger_id}: {provider} has sent the secret that it will sign with; read it with"
            ' "harn orchestrator events {topic}", enter it at {provider}, set it as the trigger\'s secret, and reload',
            trigger_id=event.trigger_id,
            provider=event.provider,
            topic=topic,
        )
