"""Which refused requests are logged, with what they asked for, why they were refused, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from harn.listener.refusals import EVERY
from harn.observability.records import as_json
from harn.testing.clients import request_bytes
from tests.listener.world import World, signed, signed_post


class RefusalLineTests(SynchronousTestCase):
    """Through the whole site."""

    def setUp(self) -> None:
        self.world = World()
        self.events = cast("list[LogEvent]", self.enterContext(capturedLogs()))

    def send(self, data: bytes) -> None:
        """Send bytes on a connection of their own."""
        self.world.wire().send(data)

    def records(self) -> list[LogEvent]:
        """Return the records of refusals so far."""
        return [event for event in self.events if event["log_namespace"] == "harn.listener"]

    def said(self) -> list[str]:
        """Return the lines of refusals since the last call."""
        found = [formatEvent(event) for event in self.records()]
        self.events.clear()
        return found

    def test_signatures(self) -> None:
        """A missing and a wrong signature name trigger, status, reason and address."""
        address = "127.0.0.1"
        for headers, body in (({}, b"{}"), (signed(b"x"), b"{}")):
            self.send(request_bytes("POST", "/hooks/gh", headers, body))
            found = self.records()
            if found:
                record = json.loads(as_json(found[0]))
                self.assertEqual((record["level"], record["trigger_id"], record["status"]), ("warn", "gh", 401))
                self.assertEqual(record["address"], address)
        self.assertEqual(len(self.said()), 1)
        self.world.clock.advance(EVERY)
        [more] = self.said()
        self.assertRegex(
            more, rf"^trigger gh: 1 more requests from {address} were refused with 401 in 60 s: X-Signature is wrong$"
        )

    def test_body(self) -> None:
        """A body that the provider's format does not allow, and one whose size is refused."""
        self.send(request_bytes("POST", "/hooks/gh", {**signed(b"{}"), "Content-Length": "99999999"}, b""))
        self.assertRegex(self.said()[0], r"^trigger gh: a request from \S+ was refused with 413: the body is larger")

    def test_admin(self) -> None:
        """Wrong credentials for the admin API, on any of its paths, are one source."""
        for path in ("/admin/generation", "/admin/reload", "/admin/nothing"):
            self.send(request_bytes("GET", path, {"Authorization": "Bearer not-a-key"}))
        [line] = self.said()
        self.assertRegex(line, r"^page /admin: a request from \S+ was refused with 401: ")
        self.assertNotIn("not-a-key", line)

    def test_not_http(self) -> None:
        """What is not HTTP, and a request that is ambiguous, are named; their bytes are not."""
        cases: Mapping[str, bytes] = {
            "no trigger: .* 400: the first line must be": b"\x16\x03\x01 nonsense\r\n\r\n",
            "trigger gh: .* 400: ": b"POST /hooks/gh HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        }
        for pattern, data in cases.items():
            self.send(data)
            self.assertRegex("\n".join(self.said()), pattern)

    def test_what_is_not_there(self) -> None:
        """A path or a method that does not exist makes no line: strangers try thousands."""
        self.send(request_bytes("POST", "/wp-login.php"))
        self.send(request_bytes("GET", "/hooks/gh"))
        self.send(signed_post("/hooks/gh"))
        self.assertEqual(self.said(), [])
