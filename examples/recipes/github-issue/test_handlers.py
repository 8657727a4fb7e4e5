"""Run by `python -m unittest` in this folder: the handler against a server of the test in the place of GitHub."""

import json
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest import mock

from harn.testing.handlers import run_handler, sentry

PATH = "/repos/octo-org/hello-world/issues"
EVENT = Path(__file__).parent / "event.json"
"""What `harn send` posts, too."""


class GitHub(BaseHTTPRequestHandler):
    """Keeps issues; answers with `failure`, where the test sets it."""

    def do_GET(self):
        self.answer(200, [{"number": number, "body": each["body"]} for number, each in self.server.issues.items()])

    def do_POST(self):
        issue = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.failure is None:
            self.server.issues[len(self.server.issues) + 1] = issue
        self.answer(201, {"number": len(self.server.issues)})

    def answer(self, status, value):
        self.server.requests.append((self.command, self.path.partition("?")[0], self.headers["Authorization"]))
        headers = {}
        if self.server.failure is not None:
            status, headers = self.server.failure
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class OpenIssueTests(unittest.TestCase):
    def setUp(self):
        self.github = HTTPServer(("127.0.0.1", 0), GitHub)
        self.github.issues, self.github.requests, self.github.failure = {}, [], None
        serving = threading.Thread(target=self.github.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        self.addCleanup(self.github.server_close)
        self.addCleanup(serving.join)
        self.addCleanup(self.github.shutdown)
        patch = mock.patch("handlers.API", f"http://127.0.0.1:{self.github.server_address[1]}")
        patch.start()
        self.addCleanup(patch.stop)

    def run_open(self, **options):
        return run_handler(
            "handlers:open_issue", sentry(body=EVENT), secrets={"github/token": "t0ken"}, timeout=20.0, **options
        )

    def test_opens(self):
        run = self.run_open()
        self.assertEqual((run.outcome, run.result), ("success", {"number": 1, "opened": True}), run)
        self.assertEqual(self.github.requests, [("GET", PATH, "Bearer t0ken"), ("POST", PATH, "Bearer t0ken")])
        issue = self.github.issues[1]
        self.assertEqual((issue["title"], issue["labels"]), ("ReferenceError", ["sentry"]))
        self.assertIn("<!-- sentry issue 1170820242 -->", issue["body"])

    def test_once(self):
        self.run_open()
        run = self.run_open(attempt=2)
        self.assertEqual(run.result, {"number": 1, "opened": False})
        self.assertEqual(len(self.github.issues), 1)

    def test_limit(self):
        reset = str(int(time.time()) + 60)
        self.github.failure = (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset})
        run = self.run_open()
        self.assertEqual(run.error_class, "retry_after")
        self.assertTrue(30 < run.retry_after <= 60, run.retry_after)

    def test_wrong_token(self):
        self.github.failure = (401, {})
        run = self.run_open()
        self.assertEqual((run.outcome, run.error), ("denied", f"GitHub answered 401 to GET {PATH}"))

    def test_github_fails(self):
        self.github.failure = (502, {})
        self.assertEqual(self.run_open().outcome, "failed")


if __name__ == "__main__":
    unittest.main()
