"""The admin API through the whole tree."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from harn.auth.authenticator import Authenticator
from harn.auth.credentials import Credentials
from harn.auth.signed_requests import sign_request
from harn.errors import EventLogUnavailable, PreconditionFailed, RouteUnknown, ShuttingDown
from harn.listener.admin_generations import GenerationPages
from harn.listener.admin_operations import OperationPages
from harn.listener.admin_reload import ReloadPages
from harn.listener.interfaces import IOperations, IReloadOperations
from harn.model.problem import Problem
from harn.reload.interfaces import IReloader
from harn.reload.report import ReloadReport
from harn.testing.clients import Wire, WireAnswer, request_bytes
from tests.listener.world import KEY, START, StubOperations, StubReloader, StubReloadOperations, World

PAGES = (
    ("POST", "/admin/reload"),
    ("POST", "/admin/plan"),
    ("POST", "/admin/rollback"),
    ("GET", "/admin/generation"),
    ("GET", "/admin/generations"),
    ("GET", "/admin/generations/7"),
    ("GET", "/admin/diff?from=6"),
    ("GET", "/admin/bindings"),
    ("GET", "/admin/inspect"),
    ("GET", "/admin/events/t"),
    ("POST", "/admin/fire/gh"),
    ("POST", "/admin/recover"),
)
"""Every page."""


class AdminCase(SynchronousTestCase):
    """A world, and authenticated requests to it."""

    def setUp(self) -> None:
        self.world = World()
        self.reloader = self.world.reloader
        self.operations = self.world.operations

    def wire(self, method: str, target: str, body: bytes = b"", **headers: str) -> Wire:
        named = {"X-API-Key": KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.world.wire().send(request_bytes(method, target, named, body))

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> WireAnswer:
        return self.wire(method, target, body, **headers).answer()


class DoublesTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """The doubles of these tests provide what they stand for."""
        verifyObject(IReloader, StubReloader())
        verifyObject(IOperations, StubOperations())
        verifyObject(IReloadOperations, StubReloadOperations())


class AuthenticationTests(AdminCase):
    def test_every_route(self) -> None:
        """No admin route does anything for who has no credentials."""
        for method, target in PAGES:
            for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
                answer = self.world.wire().send(request_bytes(method, target, headers)).answer()
                self.assertEqual((answer.status, answer.json()["title"]), (401, "Unauthorized"), target)
                self.assertIn("www-authenticate", answer.headers)
        self.assertEqual((self.reloader.asked, self.operations.calls), ([], []))
        self.assertEqual(self.world.reload_operations.calls, [])

    def test_every_route_is_listed(self) -> None:
        """The list of pages that these tests go by has every page of the three places."""
        rules = {
            (method, rule.rule)
            for app in (OperationPages.app, ReloadPages.app, GenerationPages.app)
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
        self.assertEqual(len(rules), len(PAGES))
        for method, target in PAGES:
            self.assertNotIn(self.ask(method, target).status, (404, 405, 500), target)

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
        self.world.authenticator = Authenticator(Credentials())
        for method, target in (*PAGES, ("GET", "/admin/nowhere"), ("GET", "/admin/reload")):
            answer = self.ask(method, target)
            self.assertEqual(answer.status, 401, target)
            self.assertIn("HARN_ORCHESTRATOR_API_KEYS", answer.json()["detail"])

    def test_signature_counts_once(self) -> None:
        """A signed POST is carried out once; a signed GET may come again."""
        for method, target, second in (("POST", "/admin/reload", 401), ("GET", "/admin/bindings", 200)):
            header = {"Authorization": sign_request(b"hmac-secret", method, target, b"", START)}
            answers = [self.world.wire().send(request_bytes(method, target, header)).answer() for _ in range(2)]
            self.assertEqual([answer.status for answer in answers], [200, second])
        self.assertEqual([request.actor for request in self.reloader.asked], ["hmac"])

    def test_signature_that_cannot_be_remembered(self) -> None:
        """While the event log is away a signed command is 503 and not carried out."""
        self.world.store.fail_writes = True
        header = {"Authorization": sign_request(b"hmac-secret", "POST", "/admin/reload", b"", START)}
        answer = self.world.wire().send(request_bytes("POST", "/admin/reload", header)).answer()
        self.assertEqual((answer.status, self.reloader.asked), (503, []))

    def test_unknown(self) -> None:
        """What is no admin route is 404; a wrong method on one is 405; both before the body."""
        for target in (
            "/admin",
            "/admin/",
            "/admin/nowhere",
            "/admin//reload",
            "/admin/reload/",
            "/admin/ramps/begin",
            "/admin/generations/7/x",
            "/admin/fire/a%2Fb",
            "/admin/fire/%ff",
            "/admin/%ff",
        ):
            self.assertEqual(self.ask("POST", target).status, 404, target)
        answer = self.ask("GET", "/admin/reload")
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "OPTIONS, POST"))
        self.assertEqual(self.ask("GET", "/administrator").status, 404)

    def test_any_host(self) -> None:
        """No answer depends on what a valid ``Host`` names."""
        for host in ("x" * 100, "%ff%fe", "a..b", "evil.test:99999", ""):
            self.assertEqual(self.ask("GET", "/admin/bindings", Host=host).status, 200, host)

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
        """What cannot be meant is 400 and reloads nothing."""
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
        """What the author can mend is 422, what ran out of time 504, the rest 500; the report is the answer."""
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
        """What was held back until somebody confirms it is 409, and names what would go."""
        self.reloader.report = self.report(status="needs_confirmation", error="most would go", removed=("a", "b"))
        answer = self.ask("POST", "/admin/reload")
        document = answer.json()
        self.assertEqual((answer.status, document["status"]), (409, "needs_confirmation"))
        self.assertEqual(document["removed"], ["a", "b"])
        self.reloader.report = self.report(status="unsettled", error="the files do not come to rest")
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
        """A reload goes on when its client goes away, and what comes of it is no error."""
        for end in (lambda d: d.callback(None), lambda d: d.errback(ShuttingDown("late"))):
            cancelled: list[object] = []
            self.reloader.waiting = Deferred(cancelled.append)
            wire = self.wire("POST", "/admin/reload")
            self.assertEqual(self.world.site.in_flight, 1)
            wire.drop()
            self.assertEqual((cancelled, self.world.site.in_flight), ([], 0))
            end(self.reloader.waiting)
        self.assertEqual(self.flushLoggedErrors(ShuttingDown), [])  # nobody is there to be told
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
        """The live generation has an entity tag; who knows that is told all the rest, which changes while it stays."""
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

    def test_lists(self) -> None:
        """Lists come under their names, whole states as they are."""
        for target, name in (
            ("/admin/generations", "generations"),
            ("/admin/bindings", "bindings"),
        ):
            self.assertEqual(list(self.ask("GET", target).json()), [name])
        self.assertEqual(self.ask("GET", "/admin/inspect").json(), {"did": "inspect"})
        self.ask("GET", "/admin/generations?limit=3")
        limits = [call[1] for call in self.operations.calls if call[0] == "generations"]
        self.assertEqual(limits, [20, 3])

    def test_events(self) -> None:
        """Records of a topic come with their numbers, and the topic's latest."""
        answer = self.ask("GET", "/admin/events/trigger.inbox.envelopes?after=4&limit=1000")
        self.assertEqual(
            answer.json(),
            {
                "topic": "trigger.inbox.envelopes",
                "records": [{"number": 5, "kind": "k", "payload": {"a": 1}, "headers": {}, "occurred_at": START}],
                "latest": 9,
            },
        )
        self.ask("GET", "/admin/events/t")
        self.assertEqual(
            self.operations.calls, [("events", "trigger.inbox.envelopes", 4, 1000), ("events", "t", 0, 100)]
        )

    def test_bad_pages(self) -> None:
        """Limits and positions that are none are 400."""
        for query in ("limit=0", "limit=1001", "limit=x", "after=-1", "after=" + "9" * 5000, "first=1"):
            self.assertEqual(self.ask("GET", f"/admin/events/t?{query}").status, 400, query)
        for query in ("limit=0", "limit=1001", "limit=", "after=1"):
            self.assertEqual(self.ask("GET", f"/admin/generations?{query}").status, 400, query)
        self.assertEqual(self.operations.calls, [])

    def test_unknown_topic(self) -> None:
        """What the server does not know is 404 with its words."""
        self.operations.error = RouteUnknown("no topic t")
        answer = self.ask("GET", "/admin/events/t")
        self.assertEqual((answer.status, answer.json()["detail"]), (404, "no topic t"))

    def test_event_log_away(self) -> None:
        """An event log that cannot be read is 503."""
        self.operations.error = EventLogUnavailable("disk")
        self.assertEqual(self.ask("GET", "/admin/events/t").status, 503)


class CommandTests(AdminCase):
    def test_commands(self) -> None:
        """Each command reaches its operation with what it names; a record says who had what done, and no payload."""
        for target, body, call in (
            ("/admin/fire/gh", b'{"payload":{"a":1},"request_id":"r"}', ("fire", "gh", {"a": 1})),
            ("/admin/fire/a%20b", b"", ("fire", "a b", None)),
            ("/admin/recover", b'{"envelope_age":"10m","dry_run":true}', ("recover", 600.0, True)),
        ):
            answer = self.ask("POST", target, body)
            self.assertEqual((answer.status, answer.json()), (200, {"did": call[0]}), target)
            self.assertEqual(self.operations.calls[-1], call)
        recorded = self.world.recorded
        self.assertEqual(
            [(topic, kind, payload["operation"], payload["parameters"]) for topic, kind, payload in recorded],
            [
                ("audit.operations", "fire", "fire", {"trigger": "gh"}),
                ("audit.operations", "fire", "fire", {"trigger": "a b"}),
                ("audit.operations", "recover", "recover", {"envelope_age": "10m", "dry_run": True}),
            ],
        )
        for _, _, payload in recorded:
            self.assertTrue(payload["actor"].startswith("key:"))
            self.assertRegex(payload["id"], r"\Aop_[0-9a-f-]{36}\Z")

    def test_dry_run_is_not_recorded(self) -> None:
        """What changed nothing leaves no record."""
        self.operations.result = {"dry_run": True, "recovered": 0}
        self.assertEqual(self.ask("POST", "/admin/recover", b'{"envelope_age":"10m","dry_run":true}').status, 200)
        self.assertEqual(self.world.recorded, [])

    def test_refused(self) -> None:
        """Bodies that a command does not know are 400 and do nothing."""
        for target, body in (
            ("/admin/recover", b"{}"),
            ("/admin/recover", b'{"envelope_age":5}'),
            ("/admin/recover", b'{"envelope_age":"5m","dry_run":"x"}'),
            ("/admin/fire/gh", b'{"other":1}'),
            ("/admin/fire/gh?x=1", b""),
        ):
            self.assertEqual(self.ask("POST", target, body).status, 400, (target, body))
        self.assertEqual(self.operations.calls, [])

    def test_metrics_know_no_names(self) -> None:
        """The metrics name the kind of command, never what it was about, nor how a stranger spelt it."""
        for target in ("/admin/fire/gh", "/admin/nowhere/x", "/admin/r%65load"):
            self.ask("POST", target)
        self.assertEqual(set(self.world.metrics.endpoints), {"/admin/fire", "/admin"})
