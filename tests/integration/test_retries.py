"""Attempts, retries and dead letters."""

from __future__ import annotations

from harn.testing.server import wait_until
from tests.integration.case import ServerCase, SharedServerCase, trigger_text

HANDLERS = """
    from harn.handlers import Reject, RetryAfter

    def failing(event, context):
        note(attempt=context.attempt, at=time.time())
        raise ValueError("as ever")

    def rejecting(event, context):
        note(attempt=context.attempt)
        raise Reject("not for us")

    def later(event, context):
        note(attempt=context.attempt, at=time.time())
        if context.attempt == 1:
            raise RetryAfter(1)
        return on_event(event, context)

    def third_time(event, context):
        if context.attempt < 3:
            raise ValueError("not yet")
        return on_event(event, context)
    """


class RetryCase(ServerCase):
    """A server, and one delivery whose handler may fail."""

    def begin(self, handler: str, extra: str = "") -> None:
        """Start a server with this handler and send it one delivery."""
        self.write_handlers(more=HANDLERS)
        self.write_manifest(trigger_text("gh", handler=f"handlers:{handler}", extra=extra))
        self.server = self.serve()
        self.event_id = self.assert_accepted(self.server.deliver("/triggers/gh", delivery="d1"))

    def attempts(self) -> list[int]:
        """Return the numbers of the attempts that the handler saw, in order."""
        return [each["attempt"] for each in self.seen() if "key" not in each]


class RetryTests(RetryCase, SharedServerCase):
    """What follows a failed attempt."""

    def test_success_at_last(self) -> None:
        """A delivery that succeeds at the third attempt is recorded as three attempts, and is not a dead letter."""
        self.begin("third_time")
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["attempt"], 3)
        records = self.wait_records(self.server, "trigger.attempts", 3)
        outcomes = [(each["payload"]["attempt"], each["payload"]["outcome"]) for each in records]
        self.assertEqual(outcomes, [(1, "failed"), (2, "failed"), (3, "success")])
        self.assertEqual({each["payload"]["event_id"] for each in records}, {self.event_id})
        outbox = self.server.records("trigger.outbox")
        self.assertEqual(outbox[-1]["kind"], "dispatch_succeeded")
        self.assertEqual(outbox[-1]["payload"]["result"], {"version": "one", "kind": "issues.opened", "key": "d1"})
        self.assertEqual(self.server.records("trigger.dlq"), [])

    def test_default_is_seven(self) -> None:
        """Without a ``retry`` table there are seven attempts, at once."""
        self.begin("failing")
        self.wait_records(self.server, "trigger.dlq", 1)
        self.assertEqual(self.attempts(), [1, 2, 3, 4, 5, 6, 7])

    def test_reject(self) -> None:
        """``Reject`` makes a dead letter of the first attempt."""
        self.begin("rejecting")
        [letter] = self.wait_records(self.server, "trigger.dlq", 1)
        self.assertEqual((letter["payload"]["reason"], letter["payload"]["attempt_count"]), ("rejected", 1))
        self.assertIn("not for us", letter["payload"]["final_error"])
        self.assertEqual(self.attempts(), [1])

    def test_retry_after(self) -> None:
        """``RetryAfter`` sets the next attempt's time."""
        self.begin("later")
        self.wait_handled("d1")
        first, second = [each["at"] for each in self.seen() if "at" in each]
        self.assertGreaterEqual(second - first, 0.95)  # without it the next attempt is made at once


class EndTests(RetryCase):
    """Failed and waiting attempts when a server ends."""

    def test_exhausted(self) -> None:
        """After ``retry.max`` attempts the event is a dead letter that says why, by class and in words."""
        self.begin("failing", "[triggers.retry]\nmax = 3")
        [letter] = self.wait_records(self.server, "trigger.dlq", 1)
        payload = letter["payload"]
        self.assertEqual((payload["reason"], payload["error_class"]), ("retry_exhausted", "handler_error"))
        self.assertEqual(payload["attempt_count"], 3)
        self.assertIn("as ever", payload["final_error"])
        self.assertEqual((payload["trigger_id"], payload["binding_key"]), ("gh", "gh@v1"))
        self.assertEqual(payload["event"]["id"], self.event_id)
        self.assertEqual(self.attempts(), [1, 2, 3])
        self.assertEqual(self.server.terminate(), 0)
        [trigger] = self.server.state()["triggers"]
        self.assertEqual((trigger["received"], trigger["dispatched"], trigger["dlq"]), (1, 0, 1))
        self.assertEqual(self.server.records("trigger.dlq")[0]["payload"], payload)

    def test_waiting_retry_survives_a_crash(self) -> None:
        """A retry that waits is a row: after kill -9 it is made at its time, with its number."""
        self.begin("later")
        self.wait_records(self.server, "trigger.attempts", 1)
        self.server.kill()
        self.serve()
        # On a slow machine it may have begun before the kill, too.
        self.assertEqual({seen["attempt"] for seen in self.wait_handled("d1")}, {2})

    def test_waiting_retries_hold_nothing(self) -> None:
        """With one handler at a time, deliveries that wait for a retry do not keep others from being handled."""
        self.write_handlers(more=HANDLERS.replace("RetryAfter(1)", "RetryAfter(600)"))
        self.write_manifest(
            trigger_text("later", handler="handlers:later"),
            trigger_text("gh"),
            head="[orchestrator.pumps]\nmax_outstanding = 1",
        )
        server = self.serve()
        for index in range(20):
            self.assert_accepted(server.deliver("/triggers/later", delivery=f"l{index}"), "later")
        self.wait_records(server, "trigger.attempts", 20)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        wait_until(lambda: {each["in_flight"] for each in server.bindings()} == {0}, "nothing to be in flight")
        self.assertEqual(server.terminate(), 0)
