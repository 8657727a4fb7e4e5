"""Events out of fixtures, and handlers called in a test."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.connectors.catalog import Catalog
from harn.handlers import Context, Reject, RetryAfter, SecretMissing, TriggerEvent
from harn.model.event import FORMAT
from harn.testing import shapes
from harn.testing.handlers import (
    DeliveryContext,
    LoggedRecord,
    example,
    gitea,
    github,
    linear,
    load_fixture,
    run_handler,
    slack,
    stripe,
)
from harn.testing.signers import sign_github
from harn.testing.slack_shapes import SLACK

FIXTURE: dict[str, Any] = {
    "format": FORMAT,
    "trigger_id": "gh",
    "envelope": {
        "id": "trigger_evt_1",
        "provider": "github",
        "kind": "issues.opened",
        "received_at": "2027-01-15T08:00:00.000Z",
        "dedupe_key": "d-1",
        "trace_id": "trace_1",
        "headers": {"x-github-event": "issues"},
        "signature_status": {"state": "verified"},
        "payload": {"event": "issues"},
        "lifted": {"action": ["action"]},
        "body_format": "json",
    },
    "body": '{"action": "opened", "issue": {"title": "no"}}',
}


class HandlersTests(SynchronousTestCase):
    def load(self, **changes: Any) -> TriggerEvent:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**FIXTURE, **changes}, file)
        return load_fixture(path)

    def test_event(self) -> None:
        """A fixture gives the event that a handler got: its fields, what is lifted out of the body, and the bytes."""
        event = self.load()
        self.assertEqual(
            (event.kind, event.dedupe_key, event.headers), ("issues.opened", "d-1", {"x-github-event": "issues"})
        )
        self.assertEqual((event.provider_payload["action"], event.provider_payload["event"]), ("opened", "issues"))
        self.assertEqual(event.raw_body, FIXTURE["body"].encode())
        binary = {key: value for key, value in FIXTURE.items() if key != "body"}
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**binary, "body_base64": "AP8="}, file)
        self.assertEqual(load_fixture(path).raw_body, b"\x00\xff")

    def test_documented_examples(self) -> None:
        """The examples of the manual run as they stand there."""
        page = Path(harn.__file__).parents[1] / "docs/reference/handlers.md"
        section = page.read_text("utf-8").split("## Tests without a server", 1)[1].split("## Fixtures", 1)[0]
        tested, signed = (part.split("```", 1)[0] for part in section.split("```python\n")[1:])
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "test_example.py").write_text(tested)
        (directory / "handlers.py").write_text(
            "async def on_issue(event, context):\n"
            "    assert await context.secret('github/token') == 'for tests'\n"
            "    return {'title': event.provider_payload['issue']['title']}\n"
        )
        run = [sys.executable, "-m", "unittest", "test_example"]
        done = subprocess.run(run, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran 1 test", done.stderr)
        with redirect_stdout(StringIO()) as out:
            exec(signed, {})
        self.assertEqual(out.getvalue().strip(), sign_github(b"s3cret", b"{}"))

    def test_wrong_files(self) -> None:
        """What is not a fixture is refused, with the place of the error."""
        for changes, why in (
            ({"format": "other"}, "format"),
            ({"envelope": {"id": 1}}, r"\$.envelope"),
            ({"body_base64": "AP8="}, "got both"),
            ({"extra": 1}, "extra"),
        ):
            with self.assertRaisesRegex(ValueError, f"not a fixture: .*{why}"):
                self.load(**changes)


def returns(value: Any) -> Callable[[TriggerEvent], Any]:
    """Return a handler, or a predicate, with this result."""
    return lambda event: value


class RunTests(SynchronousTestCase):
    """One attempt of a handler."""

    def test_calls(self) -> None:
        """Handlers of every shape are called, with the context that was asked for; records of their log are kept."""

        async def both(event: TriggerEvent, context: Context) -> dict[str, Any]:
            context.log.info("seen", kind=event.kind)
            return {"token": await context.secret("github/token"), "attempt": context.attempt}

        def alone(event: TriggerEvent) -> tuple[str, ...]:
            return (event.kind,)

        def plain(event: TriggerEvent, context: Context) -> Any:
            return both(event, context)

        for handler in (both, plain):
            run = run_handler(handler, github("issues.opened"), attempt=2, secrets={"github/token": "t"})
            self.assertEqual((run.outcome, run.result), ("success", {"token": "t", "attempt": 2}))
            self.assertEqual(run.log, (LoggedRecord("info", "seen", {"kind": "issues.opened"}),))
            self.assertGreater(run.seconds, 0)
        self.assertEqual(run_handler(alone, github("push")).result, ["push"])  # JSON has no tuples

    def test_trace(self) -> None:
        """The context has the trace that the test gives, or else that of the event's headers."""

        def handler(event: TriggerEvent, context: Context) -> dict[str, str]:
            return context.trace.headers()

        given = f"00-{'a' * 32}-{'b' * 16}-01"
        run = run_handler(handler, github("push"), delivery=DeliveryContext(traceparent=given))
        self.assertEqual(run.result, {"traceparent": given})
        self.assertEqual(run_handler(handler, github("push")).result, {})

    def test_failures(self) -> None:
        """Each way to fail has the outcome and the class that a server records, and its exception."""

        def raises(error: BaseException) -> Callable[[TriggerEvent], Any]:
            def handler(event: TriggerEvent) -> Any:
                raise error

            return handler

        missing = SecretMissing("no secret 'a/b' was given to run_handler")
        for error, outcome, error_class, said in (
            (KeyError("amount"), "failed", "handler_error", "KeyError: 'amount'"),
            (Reject("too old"), "denied", "rejected", "too old"),
            (RetryAfter(7, "busy"), "failed", "retry_after", "busy"),
            (SystemExit(3), "failed", "handler_error", "SystemExit: 3"),
            (missing, "failed", "handler_error", "SecretMissing: no secret 'a/b' was given to run_handler"),
        ):
            run = run_handler(raises(error), github())
            self.assertEqual((run.outcome, run.error_class, run.error), (outcome, error_class, said))
            self.assertIs(run.exception, error)
            self.assertEqual(run.retry_after, 7.0 if isinstance(error, RetryAfter) else None)
        run = run_handler(lambda event, context: context.secret_sync("a/b"), github())
        self.assertIsInstance(run.exception, SecretMissing)
        self.assertIn('add secrets={"a/b": "..."} to the call', str(run.exception))
        for result in (object(), float("nan")):
            run = run_handler(returns(result), github())
            self.assertEqual((run.outcome, run.error_class, run.result), ("failed", "result_invalid", None))

    def test_time(self) -> None:
        """An async handler is cancelled at its deadline; a plain one has its outcome after it has returned."""
        cancelled = []

        async def waits(event: TriggerEvent) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(event.kind)
                raise

        run = run_handler(waits, github("push"), timeout=0.01)
        self.assertEqual((run.outcome, run.error_class, cancelled), ("timeout", "handler_timeout", ["push"]))
        self.assertEqual(run.error, "ran longer than 0.01 s")
        self.assertEqual(run_handler(lambda event: sum(range(100_000)), github(), timeout=1e-6).outcome, "timeout")

    def test_predicate(self) -> None:
        """The predicate decides first; one that does not answer with a truth value fails the attempt."""
        called: list[TriggerEvent] = []
        for said, outcome, error_class in (
            (True, "success", None),
            (False, "skipped", None),
            (None, "failed", "predicate_error"),
        ):
            run = run_handler(called.append, github(), when=returns(said))
            self.assertEqual((run.outcome, run.error_class), (outcome, error_class))
        self.assertEqual(len(called), 1)

    def test_within_a_loop(self) -> None:
        """In an async test, async and plain handlers run as usual, the latter with ``secret_sync``, too."""

        async def handler(event: TriggerEvent) -> str:
            return event.kind

        async def test() -> tuple[Any, Any]:
            plain = run_handler(lambda event, context: context.secret_sync("a/b"), github(), secrets={"a/b": "c"})
            return run_handler(handler, github("push")).result, plain.result

        self.assertEqual(asyncio.run(test()), ("push", "c"))

    def test_by_name(self) -> None:
        """A handler is found by the names that manifests allow; a name that leads nowhere says what is wrong."""
        for name in ("tests.testing.sample_handlers:on_event", "tests.testing.sample_handlers::on_event"):
            self.assertEqual(run_handler(name, github("push")).result, "push")
        for name, said in (
            ("tests.testing.sample_handlers:on_evnt", "has no function 'on_evnt'"),
            ("tests.testing.sample_handlers:NUMBER", "is a int, not a function"),
            ("no_such_module:f", "no module 'no_such_module'"),
            ("https://example.org", "write module:function"),
        ):
            with self.assertRaisesRegex(ValueError, said):
                run_handler(name, github())

    def test_wrong_arguments(self) -> None:
        """An argument that no attempt can have is refused, with what to write."""
        wrong: tuple[tuple[Any, dict[str, Any], str], ...] = (
            ({"kind": "push"}, {}, "must be a TriggerEvent, got dict; make one with github"),
            (github(), {"attempt": 0}, "attempt must be at least 1"),
            (github(), {"timeout": 0}, "timeout must be a number of seconds greater than 0"),
            (github(), {"secrets": {"HARN_SECRET_A_B": "x"}}, "write namespace/name"),
            (github(), {"secrets": {"a/b": b"x"}}, "the value of a/b must be text, got bytes"),
        )
        for event, arguments, said in wrong:
            with self.assertRaisesRegex(ValueError, said):
                run_handler(returns(1), event, **arguments)


class EventTests(SynchronousTestCase):
    """Events of requests that no server has had."""

    def test_every_provider(self) -> None:
        """Each provider whose events come as requests has an example; its kind is a text, its body is kept."""
        for provider, plugin in Catalog.discover().plugins.items():
            if "webhook" in plugin.kinds:
                event = example(provider)
                self.assertEqual((event.provider, bool(event.kind), bool(event.raw_body)), (provider, True, True))
                self.assertIn("raw", event.provider_payload)

    def test_shapes(self) -> None:
        """The recorded shapes have the kinds that they are listed under, and the fields that are lifted."""
        for kind in shapes.GITHUB:
            self.assertEqual(github(kind).kind, kind)
        for kind in SLACK:
            self.assertEqual(slack(kind).kind, kind)
        payload = github("issue_comment.created").provider_payload
        self.assertEqual((payload["action"], payload["comment"]["user"]["login"]), ("created", "octocat"))

    def test_kinds(self) -> None:
        """Other kinds are made of the provider's own example, in the header or the body that has the kind."""
        self.assertEqual(github("star.created").provider_payload["action"], "created")
        self.assertEqual(stripe("invoice.paid").provider_payload["raw"]["type"], "invoice.paid")
        self.assertEqual(example("shopify", "orders/paid").kind, "orders/paid")
        for make, kind, said in (
            (linear, "issue", "give a body of that kind, and no kind"),
            (slack, "app_mentoin", "did you mean 'app_mention'"),
            (github, "isues.opened", "did you mean 'issues.opened'"),
            (partial(example, "a2a-push"), "a2a.task.cancelled", "the nearest is of 'a2a.task.canceled'"),
        ):
            with self.assertRaisesRegex(ValueError, said):
                make(kind)
        for make, kind in (
            *((github, kind) for kind in ("some_new_event.made", "fork", "create")),
            *((gitea, kind) for kind in ("push", "issues.closed")),
            *((slack, kind) for kind in ("/deploy", "block_actions", "view_submission", "message.im", "team_join")),
        ):
            self.assertEqual(make(kind).kind, kind)
        self.assertEqual(slack("/deploy").provider_payload["user_name"], "octocat")
        self.assertEqual(slack("block_actions").provider_payload["actions"][0]["action_id"], "confirm")

    def test_bodies(self) -> None:
        """A body of the test's own is read as the provider's; bytes whose kind is theirs already are kept."""
        path = Path(self.mktemp())
        path.write_bytes(b'{ "ref": "refs/heads/x" }')
        event = github("push", body=path, headers={"X-GitHub-Delivery": "d-1"})
        self.assertEqual((event.raw_body, event.dedupe_key), (path.read_bytes(), "d-1"))
        self.assertEqual(stripe(body={"id": "evt_1", "type": "a.b"}).kind, "a.b")
        event = example("webhook", body='{"type": "t"}', settings={"source": "shop"})
        self.assertEqual((event.kind, event.provider_payload["source"]), ("t", "shop"))

    def test_refused(self) -> None:
        """Another request, an unknown provider, and wrong settings are refused with a reason."""
        for call, said in (
            (lambda: github(body="[1]"), "not a request of github"),
            (lambda: slack(body={"type": "url_verification", "challenge": "c"}), "makes no event"),
            (lambda: example("githb"), "did you mean"),
            (lambda: example("webhook", settings={"signature_scheme": "x"}), "settings: signature_scheme"),
            (lambda: example("poll", settings={"every": "1m"}), r"make one with polled\(\)"),
            (lambda: github(settings={"x": 1}), "github has none, got x"),
        ):
            with self.assertRaisesRegex(ValueError, said):
                call()
