"""The admin API through the whole tree."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.auth.credentials import Credentials, sign_request
from harn.errors import EventLogUnavailable, PreconditionFailed, ShuttingDown
from harn.model.problem import Problem
from harn.reload.interfaces import IReloader
from harn.reload.report import ReloadReport
from harn.testing.clients import Wire, WireAnswer, request_bytes
from tests.listener.world import KEY, START, StubReloader, World

PAGES = (("POST", "/admin/reload"), ("POST", "/admin/plan"), ("POST", "/admin/rollback"), ("GET", "/admin/generation"))
"""The routes of a listener without the rooms above it."""


class AdminCase(SynchronousTestCase):
    """A world, and authenticated requests to it."""

    def setUp(self) -> None:
        self.world = World()
        self.reloader = self.world.reloader

    def wire(self, method: str, target: str, body: bytes = b"", **headers: str) -> Wire:
        named = {"X-API-Key": KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.world.wire().send(request_bytes(method, target, named, body))

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> WireAnswer:
        return self.wire(method, target, body, **headers).answer()


class DoublesTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """The doubles of these tests provide what they stand for."""
        verifyObject(IReloader, StubReloader())


class AuthenticationTests(AdminCase):
    def test_every_route(self) -> None:
        """No admin route does anything for who has no credentials."""
        for method, target in PAGES:
            for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
                answer = self.world.wire().send(request_bytes(method, target, headers)).answer()
                self.assertEqual((answer.status, answer.json()["title"]), (401, "Unauthorized"), target)
                self.assertIn("www-authenticate", answer.headers)
        self.assertEqual(self.reloader.asked, [])

    def test_every_route_is_listed(self) -> None:
        """The list that these tests go by has every operation."""
        routes = [(each.route.method, f"/admin{each.route.path}") for each in self.world.operations]
        self.assertEqual(sorted(routes), sorted(PAGES))

    def test_strangers_learn_nothing(self) -> None:
        """Without credentials each path and method gets one answer, and its body is not read, however long."""
        lengths = {"Content-Length": str(1024 * 1024 + 1)}
        said = set()
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "HMAC-SHA256 timestamp=1,signature=x"}):
            for method in ("GET", "POST", "OPTIONS", "DELETE", "BREW"):
                for target in ("/admin/reload", "/admin/nowhere", "/admin", "/admin/%ff", "/admin/fire/gh"):
                    wire = self.world.wire().send(request_bytes(method, target, {**headers, **lengths}))
                    answer = wire.answer()
                    self.assertEqual((answer.status, wire.closing), (401, True), (method, target))
                    said.add((tuple(headers), answer.body, answer.headers["www-authenticate"]))
        self.assertEqual(len(said), 3)

    def test_no_credentials_configured(self) -> None:
        """Where none are configured every answer is 401, and says what to set."""
        self.world.credentials.replace(Credentials())
        for method, target in (*PAGES, ("GET", "/admin/nowhere"), ("GET", "/admin/reload")):
            answer = self.ask(method, target)
            self.assertEqual(answer.status, 401, target)
            self.assertIn("HARN_ORCHESTRATOR_API_KEYS", answer.json()["detail"])

    def test_signature_counts_once(self) -> None:
        """A signed POST is carried out once; a signed GET may come again."""
        for method, target, second in (("POST", "/admin/reload", 401), ("GET", "/admin/generation", 200)):
            header = {"Authorization": sign_request(b"hmac-secret", method, target, b"", START)}
            answers = [self.world.wire().send(request_bytes(method, target, header)).answer() for _ in range(2)]
            self.assertEqual([answer.status for answer in answers], [200, second])
        self.assertEqual([request.actor for request in self.reloader.asked], ["hmac"])

    def test_signature_that_cannot_be_remembered(self) -> None:
        """While the event log is unavailable a signed command is 503 and not carried out."""
        self.world.store.fail_writes = True
        header = {"Authorization": sign_request(b"hmac-secret", "POST", "/admin/reload", b"", START)}
        answer = self.world.wire().send(request_bytes("POST", "/admin/reload", header)).answer()
        self.assertEqual((answer.status, self.reloader.asked), (503, []))

    def test_unknown(self) -> None:
        """A path without an admin route is 404; a wrong method on one is 405; both before the body."""
        for target in (
            "/admin",
            "/admin/",
            "/admin/nowhere",
            "/admin//reload",
            "/admin/reload/",
            "/admin/reload/x",
            "/admin/reload%2F",
            "/admin/%ff",
        ):
            self.assertEqual(self.ask("POST", target).status, 404, target)
        answer = self.ask("GET", "/admin/reload")
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "OPTIONS, POST"))
        self.assertEqual(self.ask("GET", "/administrator").status, 404)

    def test_any_host(self) -> None:
        """No answer depends on what a valid ``Host`` names."""
        for host in ("x" * 100, "%ff%fe", "a..b", "evil.test:99999", ""):
            self.assertEqual(self.ask("GET", "/admin/generation", Host=host).status, 200, host)

    def test_body_limit(self) -> None:
        """A body over 1 MiB is 413."""
        answer = self.ask("POST", "/admin/reload", Content_Length=str(1024 * 1024 + 1))
        self.assertEqual(answer.status, 413)


class ReloadTests(AdminCase):
    def report(self, **fields: Any) -> ReloadReport:
        given: dict[str, Any] = {"status": "error", "source": "cli", "actor": "a", "generation": 6, "digest": "d"}
        return ReloadReport(**{**given, **fields})

    def test_plain(self) -> None:
        """Without a body it is a reload by ``admin_api``, on behalf of the credential; the report is the answer."""
        answer = self.ask("POST", "/admin/reload")
        (asked,) = self.reloader.asked
        self.assertEqual((asked.source, asked.is_plain), ("admin_api", True))
        self.assertTrue(asked.actor.startswith("key:"))
        self.assertEqual((answer.status, answer.json()["summary"]["modified"]), (200, ["gh"]))
        self.assertEqual(answer.headers["etag"], '"7-abc"')

    def test_options(self) -> None:
        """Force, dry run, a precondition and a label reach the reloader."""
        self.ask("POST", "/admin/reload?force=true&dry_run=1", b'{"source":"ci/42"}', If_Match='W/"7-abc"')
        (asked,) = self.reloader.asked
        self.assertEqual((asked.force, asked.dry_run, asked.if_match, asked.source), (True, True, '"7-abc"', "ci/42"))

    def test_preconditions(self) -> None:
        """``*`` insists on nothing; of several tags the live one counts; another is passed on in the same form."""
        for header, wanted in (
            ("*", None),
            ('"6-x", "7-abc"', '"7-abc"'),
            ('"6-x"', '"6-x"'),
            ("7-abc", '"7-abc"'),
            ("6-x", '"6-x"'),
        ):
            self.ask("POST", "/admin/reload", If_Match=header)
            self.assertEqual(self.reloader.asked[-1].if_match, wanted, header)

    def test_label_is_made_fit(self) -> None:
        """A label is cut to 32 characters, what is unfit to be shown is replaced, a blank one is the default."""
        for given, label in (
            (b'"' + b"x" * 40 + b'"', "x" * 32),
            (b'"a\\nb c"', "a_b_c"),
            (b'"  "', "admin_api"),
            (b"null", "admin_api"),
        ):
            self.ask("POST", "/admin/reload", b'{"source":' + given + b',"request_id":"1"}')
            self.assertEqual(self.reloader.asked[-1].source, label)

    def test_refused(self) -> None:
        """An invalid request is 400 and reloads nothing."""
        for target, body in (
            ("/admin/reload", b'{"source":"signal"}'),
            ("/admin/reload", b'{"source":" file_watch "}'),
            ("/admin/reload", b'{"source":7}'),
            ("/admin/reload", b"[]"),
            ("/admin/reload", b"{"),
            ("/admin/reload", b"\xff"),
            ("/admin/reload", b'{"sauce":"cli"}'),
            ("/admin/reload?dryrun=true", b""),
            ("/admin/reload?force=perhaps", b""),
            ("/admin/reload?" + "&".join(f"a{n}=1" for n in range(40)), b""),
        ):
            answer = self.ask("POST", target, body)
            self.assertEqual((answer.status, answer.json()["status"]), (400, 400), (target, body))
        self.assertEqual(self.reloader.asked, [])

    def test_failures(self) -> None:
        """An error of the author is 422, a time-out 504, the rest 500; the report is the answer."""
        problem = Problem(file="harn.toml", line=3, message="wrong")
        for fields, status in (
            ({"stage": "validate", "problems": (problem,), "error": "1 problem"}, 422),
            ({"stage": "resolve", "timed_out": True}, 504),
            ({"stage": "prepare"}, 500),
        ):
            self.reloader.report = self.report(**fields)
            answer = self.ask("POST", "/admin/reload")
            document = answer.json()
            self.assertEqual((answer.status, document["status"], document["generation"]), (status, "error", 6))

    def test_held(self) -> None:
        """A reload that is held for confirmation is 409, and names the triggers that it would remove."""
        self.reloader.report = self.report(status="needs_confirmation", error="most would go", removed=("a", "b"))
        answer = self.ask("POST", "/admin/reload")
        document = answer.json()
        self.assertEqual((answer.status, document["status"]), (409, "needs_confirmation"))
        self.assertEqual(document["removed"], ["a", "b"])
        self.reloader.report = self.report(status="unsettled", error="the files do not stop changing")
        self.assertEqual(self.ask("POST", "/admin/reload").status, 409)

    def test_precondition_failed(self) -> None:
        """When another reload came between, 412 names both tags."""
        self.reloader.report = PreconditionFailed("another reload came between")
        answer = self.ask("POST", "/admin/reload", If_Match='"6-x"')
        document = answer.json()
        self.assertEqual((answer.status, document["if_match"], document["etag"]), (412, '"6-x"', '"7-abc"'))
        self.assertEqual(answer.headers["etag"], '"7-abc"')

    def test_going_down(self) -> None:
        """A server that goes down says 503."""
        self.reloader.report = ShuttingDown("")
        self.assertEqual(self.ask("POST", "/admin/reload").status, 503)

    def test_outlives_its_client(self) -> None:
        """A reload continues when its client disconnects, and its result does not cause an error."""
        for end in (lambda d: d.callback(self.report()), lambda d: d.errback(ShuttingDown("late"))):
            cancelled: list[object] = []
            self.reloader.waiting = Deferred(cancelled.append)
            wire = self.wire("POST", "/admin/reload")
            self.assertEqual(self.world.site.in_flight, 1)
            wire.drop()
            self.assertEqual((cancelled, self.world.site.in_flight), ([], 0))
            end(self.reloader.waiting)
        self.assertEqual(self.flushLoggedErrors(ShuttingDown), [])  # no client is left to answer
        self.assertEqual(self.flushLoggedErrors(CancelledError), [])

    def test_reloader_that_breaks(self) -> None:
        """A reloader that raises what it may not is 500, logged, and says nothing of it."""
        self.reloader.report = KeyError("inner secret")
        answer = self.ask("POST", "/admin/reload")
        self.assertEqual(answer.status, 500)
        self.assertNotIn(b"inner secret", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class ReadingTests(AdminCase):
    def test_generation(self) -> None:
        """The live generation has an entity tag, which stays while the rest of its description changes."""
        answer = self.ask("GET", "/admin/generation")
        self.assertEqual((answer.status, answer.json()["generation"]), (200, 7))
        tag = answer.headers["etag"]
        for known in (tag, f"W/{tag}", "*", '"6-x"'):
            again = self.ask("GET", "/admin/generation", If_None_Match=known)
            self.assertEqual((again.status, again.json(), again.headers["etag"]), (200, answer.json(), tag), known)

    def test_head(self) -> None:
        """HEAD works where GET does."""
        (answer,) = self.wire("HEAD", "/admin/generation").answers(heads=True)
        self.assertEqual(answer.status, 200)
        self.assertGreater(int(answer.headers["content-length"]), 2)

    def test_event_log_away(self) -> None:
        """An event log that cannot be read is 503."""
        self.reloader.report = EventLogUnavailable("disk")
        self.assertEqual(self.ask("POST", "/admin/plan").status, 503)

    def test_audited(self) -> None:
        """A reload is recorded with its label and the generation; a plan is not."""
        self.ask("POST", "/admin/reload?force=true", b'{"source":"ci","request_id":"r"}')
        self.ask("POST", "/admin/plan")
        self.ask("POST", "/admin/reload?dry_run=true")
        ((topic, kind, payload),) = self.world.recorded
        self.assertEqual((topic, kind, payload["outcome"]), ("audit.operations", "reload", "done"))
        self.assertEqual(
            (payload["parameters"], payload["counts"]), ({"source": "ci", "force": True}, {"generation": 8})
        )

    def test_metrics_know_no_names(self) -> None:
        """The metrics name the kind of command, never its subject, nor how a stranger spelt it."""
        for target in ("/admin/reload", "/admin/nowhere/x", "/admin/r%65load"):
            self.ask("POST", target)
        self.assertEqual(set(self.world.metrics.endpoints()), {"/admin/reload", "/admin"})
