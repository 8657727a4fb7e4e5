"""Run by `python -m unittest` in this folder: the handler against a server of the test in the place of Slack."""

import json
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from harn.testing.handlers import github, run_handler

EVENT = Path(__file__).parent / "event.json"
"""What `harn send` posts, too."""


class Slack(BaseHTTPRequestHandler):
    """Keeps the posted messages, and answers as the test says."""

    def do_POST(self):
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class ForwardTests(unittest.TestCase):
    def setUp(self):
        self.slack = HTTPServer(("127.0.0.1", 0), Slack)
        self.slack.posted, self.slack.answer = [], (200, {}, b"ok")
        serving = threading.Thread(target=self.slack.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        self.addCleanup(self.slack.server_close)
        self.addCleanup(serving.join)
        self.addCleanup(self.slack.shutdown)

    def run_forward(self, event=None):
        url = f"http://127.0.0.1:{self.slack.server_address[1]}/services/T0/B0/x"
        return run_handler(
            "handlers:forward",
            event or github("issues.opened", body=EVENT),
            secrets={"slack/webhook-url": url},
            timeout=20.0,
        )

    def test_forwards(self):
        run = self.run_forward()
        self.assertEqual(run.outcome, "success", run)
        text = (
            "New issue in octo-org/hello-world: "
            "<https://github.com/octo-org/hello-world/issues/42|The greeting is gone after a reload>"
        )
        self.assertEqual(self.slack.posted, [{"text": text}])

    def test_title_of_a_stranger(self):
        body = {
            "action": "opened",
            "issue": {"title": "<!channel> & more", "html_url": "https://github.com/o/r/issues/1"},
            "repository": {"full_name": "o/r"},
        }
        self.run_forward(github("issues.opened", body=body))
        self.assertIn("|&lt;!channel&gt; &amp; more>", self.slack.posted[0]["text"])

    def test_too_many(self):
        self.slack.answer = (429, {"Retry-After": "7"}, b"")
        run = self.run_forward()
        self.assertEqual((run.error_class, run.retry_after), ("retry_after", 7.0))

    def test_revoked(self):
        self.slack.answer = (403, {}, b"invalid_token")
        run = self.run_forward()
        self.assertEqual((run.outcome, run.error), ("denied", "Slack answered 403: invalid_token"))

    def test_slack_fails(self):
        self.slack.answer = (503, {}, b"")
        self.assertEqual(self.run_forward().outcome, "failed")


if __name__ == "__main__":
    unittest.main()
