"""Alerts of a real server: a signed message to a real receiver, the commands, and a crash between."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harn.connectors.signatures import StandardScheme
from harn.testing.manifests import trigger_text
from harn.testing.server import wait_until
from tests.integration.case import ServerCase

KEY = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
ALERT = """
[[triggers.alerts]]
on = "dead_letter"
to = "webhook"
url_secret = "alerts/hook"
signing_secret = "alerts/key"
threshold = 2
"""


class Receiver:
    """
    A receiver in a thread of its own.

    :ivar received: headers, by name in lower case, and body of each request.
    """

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Record a request."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/s3cr3tt0ken"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class AlertTests(ServerCase):
    def test_from_dead_letter_to_receiver(self) -> None:
        """A message arrives, signed, once; after a crash nothing is said again; no output shows the URL."""
        receiver = Receiver()
        self.addCleanup(receiver.close)
        self.environ |= {"HARN_SECRET_ALERTS_HOOK": receiver.url, "HARN_SECRET_ALERTS_KEY": KEY}
        self.write_handlers(more="from harn.handlers import Reject\n\n\ndef refuse(event):\n    raise Reject('no')\n")
        self.write_manifest(trigger_text("gh", handler="handlers:refuse", extra=ALERT))
        server = self.serve()
        for number in range(3):
            self.assertEqual(server.deliver("/triggers/gh", delivery=f"d{number}").status, 200)
        wait_until(lambda: receiver.received, "the message")
        ((headers, body),) = receiver.received
        scheme = StandardScheme()
        scheme.verify([scheme.key(KEY.encode())], headers, body, float(headers["webhook-timestamp"]))
        document = json.loads(body)
        self.assertEqual((document["type"], document["trigger_id"]), ("alert.firing", "gh"))
        self.assertIn(f"harn orchestrator delivery {document['event_id']}", document["commands"])
        wait_until(lambda: self.listed()["pending"] == 0, "the receiver's answer to be read")
        self.assertEqual(self.listed()["state"], "firing")
        server.kill()
        listed = self.listed()  # out of the store
        self.assertEqual((listed["name"], listed["state"]), ("gh/dead_letter/webhook", "firing"))
        server = self.serve()
        server.deliver("/triggers/gh", delivery="again")
        tested = self.checked("alerts", "--test", "gh/dead_letter/webhook")
        self.assertTrue(tested["sent"])
        self.assertEqual([json.loads(body)["type"] for _, body in receiver.received], ["alert.firing", "alert.test"])
        (record,) = [each for each in self.checked_records("audit.operations") if each["kind"] == "alerts.test"]
        self.assertEqual(record["payload"]["counts"], {"sent": 1})
        shown = server.stderr + self.orchestrator("alerts").stdout
        self.assertNotIn("s3cr3tt0ken", shown)

    def listed(self) -> Any:
        """Return the one alert as the command lists it."""
        (found,) = self.checked("alerts")["alerts"]
        return found

    def checked_records(self, topic: str) -> list[Any]:
        """Read the records of a topic."""
        return [json.loads(line) for line in self.orchestrator("events", topic, "--json").stdout.splitlines()]
