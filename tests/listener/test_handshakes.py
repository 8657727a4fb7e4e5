"""Secrets that senders bring with a handshake."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import HandshakeCaptured
from harn.listener.handshakes import MOST, WITHIN, Handshakes, topic_of
from harn.server import Server
from harn.store.event_log import HANDSHAKE_CAPTURED


class StubServer:
    """The parts of a server that record."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.recorded: list[Any] = []

    async def note(self, topic: str, kind: str, payload: Any) -> None:
        """Keep a record."""
        self.recorded.append((topic, kind, payload))


class HandshakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = StubServer()
        self.handshakes = Handshakes(cast(Server, self.server))

    def capture(self, trigger_id: str, secret: str) -> None:
        self.handshakes.captured(HandshakeCaptured(trigger_id, "notion", secret))

    def test_recorded(self) -> None:
        """The secret is recorded on the topic of its provider."""
        self.capture("n", "s3cret")
        payload = {"trigger_id": "n", "provider": "notion", "value": "s3cret"}
        self.assertEqual(self.server.recorded, [(topic_of("notion"), HANDSHAKE_CAPTURED, payload)])

    def test_many(self) -> None:
        """Strangers who send many do not fill the disk, nor keep another trigger from its own."""
        for number in range(3 * MOST):
            self.capture("n", f"{number}")
        self.assertEqual(len(self.server.recorded), MOST)
        self.capture("other", "s")
        self.assertEqual(len(self.server.recorded), MOST + 1)
        self.server.reactor.advance(WITHIN)
        self.capture("n", "right")
        self.assertEqual(self.server.recorded[-1][2]["value"], "right")
