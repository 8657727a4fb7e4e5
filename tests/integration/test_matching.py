"""Which events a trigger takes: ``match.events``, ``filter`` and ``when``."""

from __future__ import annotations

import json
import re

from harn.testing.server import Answer, ServerProcess
from tests.integration.case import SharedServerCase, trigger_text


class MatchingTests(SharedServerCase):
    """What is taken and what is ignored."""

    def assert_ignored(self, answer: Answer) -> None:
        """See that a delivery was ignored, with exactly these keys."""
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.json(), {"status": "ignored", "trigger_id": "gh"})
        self.assertIn("harn-generation", answer.headers)

    def test_events(self) -> None:
        """``match.events`` is applied to every delivery; ``issues.*`` takes all of issues and nothing else."""
        self.write_manifest(trigger_text("gh", events=("issues.*", "push")))
        server = self.serve()
        before = self.received(server)
        connection = server.connect()
        taken = {("issues", b'{"action": "opened"}'), ("issues", b'{"action": "x.y"}'), ("push", b"{}")}
        ignored = {
            *(("issues", b"{}"), ("push", b'{"action": "opened"}'), ("issue", b'{"action": "s.opened"}')),
            *(("issues_x", b'{"action": "opened"}'), ("pull_request", b'{"action": "opened"}')),
        }
        for number, (event, body) in enumerate(sorted(taken)):
            self.assert_accepted(connection.deliver("/triggers/gh", body, delivery=f"t{number}", event=event))
        for number, (event, body) in enumerate(sorted(ignored)):
            self.assert_ignored(connection.deliver("/triggers/gh", body, delivery=f"i{number}", event=event))
        connection.close()
        self.wait_handled("t0", "t1", "t2")
        self.assertEqual(len(server.records("trigger.inbox.envelopes")), 3)
        self.assertEqual(self.received(server), before + 8)

    def received(self, server: ServerProcess) -> int:
        """Count the received events of the trigger, by the metrics."""
        metrics = server.request("GET", "/metrics").body.decode()
        [count] = re.findall(r'^harn_trigger_received_total\{provider="github",trigger_id="gh"\} (\d+)', metrics, re.M)
        return int(count)

    def test_no_events_match_all(self) -> None:
        """Empty ``match.events`` takes everything."""
        self.write_manifest(trigger_text("gh", events=()))
        server = self.serve()
        for number, event in enumerate(("issues", "push", "anything")):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{number}", event=event))

    def test_filter(self) -> None:
        """
        ``filter`` keeps what is truthy as JMESPath defines it: 0 is true, and empty text, list and object are not.
        """
        self.write_manifest(trigger_text("gh", extra="filter = 'event.provider_payload.raw.value'"))
        server = self.serve()
        connection = server.connect()
        truth = ((True, True), (0, True), ("x", True), ([0], True), ({"a": 1}, True))
        falsehood: tuple[tuple[object, bool], ...] = (
            (False, False),
            (None, False),
            ("", False),
            ([], False),
            ({}, False),
        )
        for number, (value, is_kept) in enumerate((*truth, *falsehood)):
            body = json.dumps({"action": "opened", "value": value}).encode()
            answer = connection.deliver("/triggers/gh", body, delivery=f"d{number}")
            if is_kept:
                self.assert_accepted(answer)
            else:
                self.assert_ignored(answer)
        self.assert_ignored(connection.deliver("/triggers/gh", b'{"action": "opened"}', delivery="none"))
        connection.close()

    def test_filter_sees_the_whole_event(self) -> None:
        """A filter may ask for headers, kind and the provider's lifted fields."""
        expression = (
            'event.kind == `"issues.opened"` && event.headers."x-github-event" == `"issues"` '
            "&& event.provider_payload.issue.number > `5`"
        )
        self.write_manifest(trigger_text("gh", extra=f"filter = '''{expression}'''"))
        server = self.serve()
        self.assert_accepted(
            server.deliver("/triggers/gh", b'{"action": "opened", "issue": {"number": 6}}', delivery="a")
        )
        self.assert_ignored(
            server.deliver("/triggers/gh", b'{"action": "opened", "issue": {"number": 5}}', delivery="b")
        )

    def test_filter_that_fails(self) -> None:
        """A filter that fails keeps the event as a dead letter with reason ``filter_error``; it is never handled."""
        self.write_manifest(trigger_text("gh", extra="filter = 'abs(event.provider_payload.raw.value) > `1`'"))
        server = self.serve()
        answer = server.deliver("/triggers/gh", b'{"action": "opened", "value": "text"}', delivery="d1")
        self.assertEqual(answer.status, 200, answer)
        [letter] = server.records("trigger.dlq")
        self.assertEqual(letter["payload"]["reason"], "filter_error")
        self.assertEqual(letter["payload"]["event"]["dedupe_key"], "d1")
        self.assert_accepted(server.deliver("/triggers/gh", b'{"action": "opened", "value": 2}', delivery="d2"))
        self.wait_handled("d2")
        self.assertEqual(self.handled(), ["d2"])

    def test_predicate(self) -> None:
        """``when`` runs once for each event, before the handler; what it turns down is skipped, not failed."""
        self.write_handlers(
            more="""
            def wanted(event):
                note(asked=event.dedupe_key, version=VERSION)
                return event.provider_payload["raw"].get("wanted")
            """
        )
        self.write_manifest(trigger_text("gh", extra='when = "handlers:wanted"'))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", b'{"action": "opened", "wanted": false}', delivery="no"))
        self.assert_accepted(server.deliver("/triggers/gh", b'{"action": "opened", "wanted": true}', delivery="yes"))
        self.wait_handled("yes")
        outbox = self.wait_records(server, "trigger.outbox", 2)
        kinds = {record["headers"]["event_id"]: record["kind"] for record in outbox}
        self.assertEqual(sorted(kinds.values()), ["dispatch_skipped", "dispatch_succeeded"])
        self.assertEqual(sorted(each["asked"] for each in self.seen() if "asked" in each), ["no", "yes"])
        self.assertEqual(self.handled(), ["yes"])
        self.assertEqual(server.records("trigger.dlq"), [])

    def test_predicate_of_a_retry(self) -> None:
        """``when`` is not asked again for a retry."""
        self.write_handlers(
            more="""
            def wanted(event):
                note(asked=event.dedupe_key)
                return True

            def second_time(event, context):
                if context.attempt == 1:
                    raise RuntimeError("not yet")
                return on_event(event, context)
            """
        )
        self.write_manifest(trigger_text("gh", handler="handlers:second_time", extra='when = "handlers:wanted"'))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["attempt"], 2)
        self.assertEqual([each["asked"] for each in self.seen() if "asked" in each], ["d1"])

    def test_spellings_of_a_handler(self) -> None:
        """``module:function``, ``module::function`` and ``module.function`` are one; a bare name lies in ``lib``."""
        self.write("lib.py", "from handlers import on_event\n")
        self.write_handlers()
        spellings = ("handlers:on_event", "handlers::on_event", "handlers.on_event", "on_event", "moved:on_event")
        self.write("src/elsewhere.py", "from handlers import on_event\n")
        triggers = [trigger_text(f"t{number}", handler=spelling) for number, spelling in enumerate(spellings)]
        self.write_manifest(*triggers, head='[exports]\nmoved = "src/elsewhere.py"')
        server = self.serve()
        for number in range(len(spellings)):
            self.assert_accepted(server.deliver(f"/triggers/t{number}", delivery=f"d{number}"), f"t{number}")
        self.wait_handled(*(f"d{number}" for number in range(len(spellings))))
