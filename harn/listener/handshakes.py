"""The record of secrets that senders transmit in a handshake; the operator copies them into the configuration."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from harn.lifecycle import HandshakeCaptured
from harn.server import Server
from harn.store.event_log import HANDSHAKE_CAPTURED

MOST, WITHIN = 20, 3600.0
"""At most `MOST` handshakes of a trigger are recorded in `WITHIN` seconds, as their senders are not authenticated."""

log = Logger(namespace="harn.listener")


def topic_of(provider: str) -> str:
    """Return the topic on which a provider's handshakes are recorded."""
    return f"connectors.{provider}.webhook.handshake"


@define
class _Recent:
    """
    The recent handshakes of one trigger.

    :ivar since: the time of the first (seconds of the reactor's clock).
    :ivar count: their number.
    """

    since: float
    count: int = 0


class Handshakes:
    """Records each handshake with a secret, and logs where the secret can be read; the secret itself is not logged."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._recent: dict[str, _Recent] = {}

    def captured(self, event: HandshakeCaptured) -> None:
        """Called with a handshake after the response to it."""
        if not self._may_record(event.trigger_id):
            return
        topic = topic_of(event.provider)
        payload = {"trigger_id": event.trigger_id, "provider": event.provider, "value": event.secret}
        noting = Deferred.fromCoroutine(self._server.note(topic, HANDSHAKE_CAPTURED, payload))
        noting.addErrback(lambda failure: log.failure("a handshake was not recorded", failure))
        log.warn(
            "trigger {trigger_id}: {provider} has sent the secret that it will sign with; read it with"
            ' "harn orchestrator events {topic}", enter it at {provider}, set it as the trigger\'s secret, and reload',
            trigger_id=event.trigger_id,
            provider=event.provider,
            topic=topic,
        )

    def _may_record(self, trigger_id: str) -> bool:
        """Count a handshake; return whether it may be recorded, and log the first one that may not."""
        now = self._server.reactor.seconds()
        recent = self._recent.get(trigger_id)
        if recent is None or now - recent.since >= WITHIN:
            recent = self._recent[trigger_id] = _Recent(now)
        recent.count += 1
        if recent.count == MOST + 1:
            log.warn(
                "trigger {trigger_id}: more than {most} handshakes came within an hour, perhaps from a stranger; no"
                " more of them are recorded in that time; set the secret, or allow_from",
                trigger_id=trigger_id,
                most=MOST,
            )
        return recent.count <= MOST
