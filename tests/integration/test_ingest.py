"""The answers of a trigger's route, one by one."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from harn.connectors.bodies import FORM
from harn.connectors.providers.slack import SLACK
from harn.connectors.providers.stripe import STRIPE
from harn.testing.server import GITHUB_SECRET, Answer, ServerProcess
from harn.testing.signers import github_headers, sign_github, slack_headers, standard_headers, stripe_headers
from tests.integration.case import ServerCase, SharedServerCase, trigger_text


def exchange(server: ServerProcess, data: bytes) -> bytes:
    """Send bytes; give all that comes until the server closes or 2 s bring nothing."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), 2.0) as connection:
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
    return answer


class AnswerTests(SharedServerCase):
    """What a sender reads."""

    def test_refused_credentials(self) -> None:
        """A signature that is missing, wrong, malformed or of another body gives 401, and nothing is handled."""
        server = self.serve()
        generation = str(server.generation()["generation"])
        body = b'{"action": "opened"}'
        signed = github_headers(GITHUB_SECRET, body, "issues", "d1")
        other = sign_github(GITHUB_SECRET, b'{"action": "closed"}')
        for signature in (None, "", "sha256=", "sha256=" + "0" * 64, other, other.removeprefix("sha256=")):
            headers = {name: value for name, value in signed.items() if name != "X-Hub-Signature-256"}
            if signature is not None:
                headers["X-Hub-Signature-256"] = signature
            answer = server.request("POST", "/triggers/gh", body, headers)
            self.assert_problem(answer, 401)
            self.assertEqual(answer.headers["harn-generation"], generation)
        self.assertEqual(server.records("trigger.inbox.envelopes"), [])

    def test_bad_body(self) -> None:
        """A signed body that GitHub's format does not allow gives 400."""
        server = self.serve()
        for body in (b"", b"{", b"[1]", b"\xff"):
            self.assert_problem(server.deliver("/triggers/gh", body, delivery="d1"), 400)

    def test_unknown_path(self) -> None:
        """A path without a trigger gives 404, whatever the method; so does the root, and a slash too many."""
        server = self.serve()
        for method, path in (("POST", "/triggers/nope"), ("GET", "/nope"), ("POST", "/triggers/gh/"), ("GET", "/")):
            self.assert_problem(server.request(method, path), 404)

    def test_wrong_method(self) -> None:
        """Another method than POST on a route gives 405 that says what is allowed."""
        server = self.serve()
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            answer = server.request(method, "/triggers/gh")
            self.assert_problem(answer, 405)
            self.assertIn("POST", answer.headers["allow"])
        answer = server.request("POST", "/health", b"{}")
        self.assert_problem(answer, 405)
        self.assertIn("GET", answer.headers["allow"])

    def test_head_and_options(self) -> None:
        """HEAD of a page is GET without its body; OPTIONS says what is allowed."""
        server = self.serve()
        connection = server.connect()
        for path in ("/health", "/readyz", "/metrics"):
            head = connection.request("HEAD", path)
            self.assertEqual((head.status, head.body), (200, b""))
        answer = connection.request("OPTIONS", "/triggers/gh")
        self.assertIn(answer.status, (200, 204))
        self.assertIn("POST", answer.headers["allow"])
        self.assertEqual(connection.request("GET", "/health").status, 200)
        connection.close()

    def test_kept_alive_connection(self) -> None:
        """Deliveries, errors and pages follow one another on one connection."""
        server = self.serve()
        connection = server.connect()
        for index in range(20):
            self.assert_accepted(connection.deliver("/triggers/gh", delivery=f"d{index}"))
            self.assert_problem(connection.deliver("/triggers/gh", delivery="x", secret=b"wrong"), 401)
            self.assert_problem(connection.request("POST", "/nope", b"{}"), 404)
            self.assertTrue(connection.is_open)
        connection.close()

    def test_readyz_of_a_later_generation(self) -> None:
        """``?generation=N`` is 503 until N serves; a value that is not a number is the caller's mistake."""
        server = self.serve()
        live = server.generation()["generation"]
        self.assertEqual(server.request("GET", f"/readyz?generation={live}").status, 200)
        self.assert_problem(server.request("GET", f"/readyz?generation={live + 1}"), 503)
        self.assertIn(server.request("GET", "/readyz?generation=x").status, (400, 503))


class FirstGenerationTests(ServerCase):
    """What a sender, and a reader of the metrics, sees of a server that has just started."""

    def test_accepted(self) -> None:
        """Accepted: exactly these four keys; the event's id is the one by which handlers and records know it."""
        server = self.serve()
        answer = server.deliver("/triggers/gh", delivery="d1")
        event_id = self.assert_accepted(answer)
        expected = {"status": "accepted", "event_id": event_id, "trigger_id": "gh", "binding": "gh@v1"}
        self.assertEqual(answer.json(), expected)
        self.assertRegex(event_id, r"\Atrigger_evt_[0-9a-f-]{36}\Z")
        self.assertEqual(answer.headers["harn-generation"], "1")
        self.assertTrue(answer.headers["content-type"].startswith("application/json"))
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["id"], event_id)
        [record] = self.wait_records(server, "trigger.outbox", 1)
        self.assertEqual(record["payload"]["event_id"], event_id)

    def test_metrics(self) -> None:
        """The metrics are Prometheus text, count by trigger, and tell the generation."""
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        answer = server.request("GET", "/metrics")
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        text = answer.body.decode()
        for name in (
            *("harn_generation 1", 'harn_trigger_received_total{provider="github",trigger_id="gh"} 1'),
            *("harn_reload_last_status 1", "harn_reload_last_success_timestamp_seconds", "harn_binding_in_flight{"),
            "harn_http_requests_total{",
        ):
            self.assertIn(name, text)


class ProviderTests(ServerCase):
    """Providers other than GitHub in JSON, as senders meet them."""

    def test_webhook_schemes(self) -> None:
        """The generic webhook verifies by its own table: standard by default, stripe where it says so."""
        self.environ["HARN_SECRET_WEBHOOK_STANDARD"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        self.environ["HARN_SECRET_WEBHOOK_STRIPE"] = "stripe-secret"
        triggers = (
            trigger_text("standard", provider="webhook", events=(), secret="standard"),
            trigger_text(
                "stripe",
                provider="webhook",
                events=(),
                secret="stripe",
                extra='[triggers.webhook]\nsignature_scheme = "stripe"\ntimestamp_tolerance_secs = 60',
            ),
        )
        self.write_manifest(*triggers)
        server = self.serve()
        body, now = b'{"id": "m1", "type": "made"}', int(time.time())
        whsec = self.environ["HARN_SECRET_WEBHOOK_STANDARD"].encode()
        good = server.request("POST", "/triggers/standard", body, standard_headers(whsec, body, now))
        self.assert_accepted(good, "standard")
        stale = server.request("POST", "/triggers/standard", body, standard_headers(whsec, body, now - 400))
        self.assert_problem(stale, 401)
        good = server.request("POST", "/triggers/stripe", body, stripe_headers(b"stripe-secret", body, now))
        self.assert_accepted(good, "stripe")
        for wrong in (stripe_headers(b"stripe-secret", body, now - 100), standard_headers(whsec, body, now)):
            self.assert_problem(server.request("POST", "/triggers/stripe", body, wrong), 401)

    def test_slack_and_stripe_by_name(self) -> None:
        """The providers of these names verify, answer and name events as their senders expect."""
        self.write_handlers(
            more="""
            def on_any(event, context):
                note(key=event.dedupe_key, kind=event.kind, payload=event.provider_payload)
            """
        )
        for provider in ("slack", "stripe"):
            self.environ[f"HARN_SECRET_{provider.upper()}_WEBHOOK_SECRET"] = "s3cret"
        extra = 'dedupe_key = "event.dedupe_key"'
        self.write_manifest(
            trigger_text(
                "slack", provider="slack", events=("app_mention", "/deploy"), handler="handlers:on_any", extra=extra
            ),
            trigger_text("stripe", provider="stripe", events=("payment_intent.*",), handler="handlers:on_any"),
        )
        server = self.serve()

        def slack(body: bytes, content_type: str = "application/json", **more: str) -> Answer:
            headers = slack_headers(b"s3cret", body, int(time.time()), content_type)
            return server.request("POST", "/triggers/slack", body, {**headers, **more})

        answer = slack(b'{"type": "url_verification", "challenge": "c-1"}')
        self.assertEqual(
            (answer.status, answer.body, answer.headers["content-type"]), (200, b"c-1", "text/plain; charset=utf-8")
        )
        assert SLACK.example is not None and STRIPE.example is not None
        body = SLACK.example.body
        self.assert_accepted(slack(body), "slack")
        again = slack(body, **{"X-Slack-Retry-Num": "1"})
        self.assertEqual(again.json()["status"], "duplicate_dropped")
        self.assertEqual((slack(b"command=%2Fdeploy&text=now&trigger_id=t1", FORM).body), b"")
        refused = server.request("POST", "/triggers/slack", body, slack_headers(b"wrong", body, int(time.time())))
        self.assert_problem(refused, 401)
        self.assertEqual(refused.headers["x-slack-no-retry"], "1")
        body = STRIPE.example.body
        answer = server.request("POST", "/triggers/stripe", body, stripe_headers(b"s3cret", body, int(time.time())))
        self.assert_accepted(answer, "stripe")
        fired = self.checked("fire", "slack")
        self.assertEqual((fired["status"], fired["error"]), ("dispatched", None))
        self.assertTrue([key for key in self.handled() if key.startswith("fire:slack:")])
        unsigned = b"POST /triggers/stripe HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"
        self.assertTrue(exchange(server, unsigned).startswith(b"HTTP/1.1 401 "), "before there is a body")
        kinds = {"Ev1": "app_mention", "t1": "/deploy", "evt_1NG8Du2eZvKYlo2CUI79vXWy": "payment_intent.succeeded"}
        for key, kind in kinds.items():
            [seen] = self.wait_handled(key)
            self.assertEqual((seen["kind"], seen["payload"]["event"]), (kind, kind))


class EventTests(SharedServerCase):
    """What a handler is given."""

    def test_form_of_github(self) -> None:
        """GitHub's form encoding is verified over the raw body and handled as the JSON in its ``payload``."""
        self.write_handlers(
            more="""
            def on_form(event, context):
                note(key=event.dedupe_key, kind=event.kind, raw=event.provider_payload["raw"],
                     action=event.provider_payload["action"], body=event.raw_body.decode("ascii"))
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:on_form"))
        server = self.serve()
        body = b"payload=%7B%22action%22%3A+%22opened%22%2C+%22n%22%3A+1%7D"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        self.assert_accepted(server.deliver("/triggers/gh", body, delivery="d1", headers=form))
        [seen] = self.wait_handled("d1")
        expected = {
            "key": "d1",
            "kind": "issues.opened",
            "raw": {"action": "opened", "n": 1},
            "action": "opened",
            "body": body.decode(),
        }
        self.assertEqual(seen, expected)
        self.assert_problem(server.deliver("/triggers/gh", b"other=1", delivery="d2", headers=form), 400)

    def test_event_as_the_handler_sees_it(self) -> None:
        """The event has the fields that the reference promises, its headers as they came."""
        self.write_handlers(
            more="""
            def on_any(event, context):
                note(key=event.dedupe_key, event=event.to_dict(), binding=context.binding, trigger=context.trigger_id,
                     attempt=context.attempt, replay_of=context.replay_of, left=context.deadline - time.time(),
                     bytes=event.raw_body.hex())
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:on_any", extra='timeout = "20s"'))
        server = self.serve()
        body = b'{"action": "opened", "issue": {"number": 7}, "installation": {"id": 5}}'
        more = {"X-Api-Key": "the sender's own", "X-Request-Id": "r-1", "Idempotency-Key": "order-1"}
        answer = server.deliver("/triggers/gh", body, delivery="d1", headers=more)
        event_id = self.assert_accepted(answer)
        [seen] = self.wait_handled("d1")
        event: dict[str, Any] = seen["event"]
        self.assertEqual(event["id"], event_id)
        self.assertEqual((event["provider"], event["kind"]), ("github", "issues.opened"))
        self.assertEqual(event["signature_status"], {"state": "verified"})
        self.assertTrue(event["trace_id"].startswith("trace_"))
        self.assertIsNone(event["tenant_id"])
        self.assertEqual(event["headers"]["x-api-key"], "the sender's own")
        self.assertEqual(event["headers"]["idempotency-key"], "order-1")
        self.assertEqual(event["headers"]["x-request-id"], "r-1")
        self.assertEqual(event["headers"]["x-github-event"], "issues")
        payload = event["provider_payload"]
        self.assertEqual(payload["provider"], "github")
        self.assertEqual((payload["event"], payload["action"], payload["delivery_id"]), ("issues", "opened", "d1"))
        self.assertEqual((payload["issue"], payload["installation_id"]), ({"number": 7}, 5))
        self.assertEqual(payload["raw"], json.loads(body))
        self.assertEqual(bytes.fromhex(seen["bytes"]), body)
        self.assertEqual((seen["binding"], seen["trigger"], seen["attempt"]), (answer.json()["binding"], "gh", 1))
        self.assertIsNone(seen["replay_of"])
        self.assertTrue(0 < seen["left"] <= 20, seen["left"])


class WireTests(SharedServerCase):
    """What unusual clients send."""

    def test_large_header(self) -> None:
        """A header of 100 KB is refused or taken, and the server goes on serving."""
        server = self.serve()
        answer = exchange(server, b"GET /health HTTP/1.1\r\nHost: h\r\nX-Large: " + b"x" * 102_400 + b"\r\n\r\n")
        self.assertNotIn(b" 500 ", answer.split(b"\r\n")[0])
        self.assertEqual(server.request("GET", "/health").status, 200)

    def test_nonsense(self) -> None:
        """Bytes that are not HTTP get 400 or a closed connection."""
        server = self.serve()
        for data in (
            b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
            b"GET\r\n\r\n",
            b"POST /triggers/gh HTTP/1.1\r\nHost: h\r\nContent-Length: nonsense\r\n\r\n",
        ):
            answer = exchange(server, data)
            self.assertTrue(answer == b"" or answer.split(b" ")[1] == b"400", answer)
        self.assertEqual(server.request("GET", "/health").status, 200)

    def test_chunked_body(self) -> None:
        """A body in chunks is verified and accepted as one in one piece."""
        server = self.serve()
        body = b'{"action": "opened"}'
        headers = github_headers(GITHUB_SECRET, body, "issues", "d1")
        head = b"POST /triggers/gh HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:7], body[7:])) + b"0\r\n\r\n"
        answer = exchange(server, head + lines + b"\r\n" + chunks)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.wait_handled("d1")

    def test_pipelined_requests(self) -> None:
        """Requests that are sent without waiting are answered in their order."""
        server = self.serve()
        requests = (
            b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * 2
            + b"GET /nope HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )
        answer = exchange(server, requests)
        self.assertEqual([line.split(b" ")[1] for line in answer.split(b"HTTP/1.1")[1:]], [b"200", b"200", b"404"])
