"""The pages of deliveries and dead letters."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from random import Random
from typing import Any

from harn.connectors.interfaces import NormalizedEvent
from harn.console import dead_letters
from harn.console.deliveries import PER_PAGE
from harn.console.forms import one_literal
from harn.dispatch.decisions import Arrival
from harn.errors import HandlerRaised, HandlerRejected
from harn.model.display import REDACTED
from harn.model.event_trace import Sampler, TraceContexts
from tests.console.test_sign_in import ConsoleCase
from tests.console.world import ConsoleWorld, between

HOSTILE = "<script>alert('x')</script>\"'&\u202e\x1b[31m"


class DeliveriesCase(ConsoleCase):
    def take(self, body: bytes, key: str = "d", **headers: str) -> str:
        """Accept an event of ``a`` with this body and these headers; return its id."""
        route = self.world.table.tree["/triggers/a"]
        route.lease()
        arrival = Arrival(headers=headers, body=body, received_at=self.world.clock.seconds())
        taking: Any = self.world.intake.take(route.binding, arrival, [NormalizedEvent(kind="thing", dedupe_key=key)])
        route.release()
        (event_id,) = taking.result.event_ids
        self.world.clock.advance(0)
        return str(event_id)


class ListTests(DeliveriesCase):
    def test_empty(self) -> None:
        """Without deliveries the page says what to do first; with a search, why there may be none."""
        browser = self.world.signed_in()
        self.assertIn("harn send TRIGGER", browser.page("/deliveries"))
        self.assertIn("No delivery matches", browser.page("/deliveries?trigger=a"))

    def test_search(self) -> None:
        """Each field selects; an event id leads to its page, a sender's id to those that have it."""
        dead = self.world.die("a", "d1")
        self.world.clock.advance(120)
        waiting = self.take(b'{"n": 7}', "it's `odd`")
        browser = self.world.signed_in()
        for query, found in (
            ("", {dead, waiting}),
            ("?state=dead", {dead}),
            ("?state=running", {waiting}),
            ("?trigger=b", set()),
            ("?kind=thing", {dead, waiting}),
            ("?kind=other", set()),
            ("?since=1m", {waiting}),
            ("?where=event.provider_payload.raw.n+%3D%3D+%607%60", {waiting}),
            ("?id=d1", {dead}),
            ("?id=it%27s+%60odd%60", {waiting}),
            ("?id=d1&where=state+%3D%3D+%27done%27", set()),
        ):
            page = browser.page(f"/deliveries{query}")
            self.assertEqual({each for each in (dead, waiting) if each in page}, found, query)
        answer = browser.get(f"/deliveries?id={dead}")
        self.assertEqual((answer.status, answer.headers["location"]), (303, f"/console/deliveries/{dead}"))

    def test_wrong_search(self) -> None:
        """A field that cannot be read is 400, with the message of the operation and what was written."""
        browser = self.world.signed_in()
        for query, said in (
            ("where=%5B%5B", "where: must be a JMESPath expression"),
            ("where=%5B%5B&id=x", "must be a JMESPath expression"),
            ("state=gone", "gone"),
            ("since=never", "must be a duration"),
            ("before=99999999999999999999", "before"),
        ):
            answer = browser.get(f"/deliveries?{query}")
            self.assertEqual(answer.status, 400, query)
            self.assertIn(said, answer.body.decode(), query)
        self.assertIn('value="[["', browser.get("/deliveries?where=%5B%5B").body.decode())

    def test_pages(self) -> None:
        """A page has so many; the link at its end leads to the older ones, of the same search."""
        ids = [self.world.die("a", f"d{number}") for number in range(PER_PAGE + 3)]
        browser = self.world.signed_in()
        first = browser.page("/deliveries?state=dead")
        more = between(first, '<p class="pages"><a href="', '"').replace("&amp;", "&")
        self.assertIn("state=dead", more)
        second = browser.page(more.removeprefix("/console"))
        self.assertEqual([sum(each in page for each in ids) for page in (first, second)], [PER_PAGE, 3])
        self.assertNotIn("Older deliveries", second)
        self.assertNotIn("data-refresh", second)

    def test_part(self) -> None:
        """The script gets the list alone."""
        dead = self.world.die()
        page = self.world.signed_in().page("/deliveries?part=1")
        self.assertIn(dead, page)
        self.assertNotIn("<html", page)

    def test_literals(self) -> None:
        """Any text is one literal of JMESPath."""
        import jmespath

        for text in ("a", "it's", "`", "\\`", '"', "\\", "\n", "\u00e4\U0001f600", "`` || `true`"):
            self.assertEqual(jmespath.search(one_literal(text), {}), text)


class DetailTests(DeliveriesCase):
    def test_everything_is_escaped(self) -> None:
        """No text of a sender or a handler is markup, steers the page, or reorders it."""
        body = json.dumps({HOSTILE: [HOSTILE], "text": HOSTILE}).encode()
        event_id = self.take(body, HOSTILE, **{"x-odd": "<img src=x onerror=alert(1)>", "x-quote": "\"'><b>"})
        (call,) = self.world.calls
        call.raises(HandlerRejected(HOSTILE))
        self.world.clock.advance(0)
        browser = self.world.signed_in()
        for path in (f"/deliveries/{event_id}", "/deliveries", f"/deliveries?where=%27{'%3Cb%3E'}%27", "/dead-letters"):
            answer = browser.get(path)
            text = answer.body.decode().replace("<script src", "")
            for wrong in ("<script", "<img src=x", "<b>", "\u202e", "\x1b"):
                self.assertNotIn(wrong, text, path)
        page = browser.page(f"/deliveries/{event_id}")
        self.assertIn("&lt;script&gt;", page)
        self.assertIn("\\x1b[31m", page)

    def test_secrets_stay_hidden(self) -> None:
        """What other commands redact, the page, its part and the export redact: headers, signatures, fields, keys."""
        body = b'{"password": "hunter2", "note": "s-1", "n": 1}'
        event_id = self.take(body, "d", authorization="Bearer abc123", **{"x-hub-signature-256": "sha256=feed"})
        browser = self.world.signed_in()
        for path in ("", "?part=1", "/fixture.json"):
            page = browser.page(f"/deliveries/{event_id}{path}")
            self.assertIn(REDACTED, page)
            for secret in ("hunter2", "abc123", "sha256=feed", "s-1", "raw_body"):
                self.assertNotIn(secret, page, path)

    def test_bytes(self) -> None:
        """A body that is not text is shown as base64, with its size."""
        event_id = self.take(bytes(range(200, 256)))
        page = self.world.signed_in().page(f"/deliveries/{event_id}")
        self.assertIn("56 bytes that are not text, in base64:", page)
        self.assertIn(base64.b64encode(bytes(range(200, 256))).decode(), page)
        self.assertNotIn("raw_utf8", page)

    def test_only_the_last_attempt_is_open(self) -> None:
        """Of several attempts that failed, the traceback of the last one can be read at once."""
        taking: Any = self.world.take("a", "d")
        (event_id,) = taking.result.event_ids
        for _ in range(2):
            error = HandlerRaised("no")
            error.traceback = "Traceback: here"
            self.world.calls[-1].raises(error)
            self.world.clock.advance(3600)
        page = self.world.signed_in().page(f"/deliveries/{event_id}")
        opened = re.findall(r"<details( open)?><summary>Traceback", page)
        self.assertEqual(opened, ["", " open"])

    def test_timeline(self) -> None:
        """A delivery that failed shows its attempts with error, and its end."""
        event_id = self.world.die("a", "d", why="never")
        page = self.world.signed_in().page(f"/deliveries/{event_id}")
        for text in ("Received", "Accepted", "Attempt 1", "never", "Dead", "Replay", "Discard", "a@v1"):
            self.assertIn(text, page)
        self.assertNotIn(">Cancel<", page)
        self.assertNotIn("data-refresh", page)

    def test_trace(self) -> None:
        """While traces are on, the page names the trace of OpenTelemetry: that of the sender's context."""
        self.world = ConsoleWorld(Path(self.mktemp()), TraceContexts(Sampler(), Random(1)))
        event_id = self.take(b"{}", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        page = self.world.signed_in().page(f"/deliveries/{event_id}")
        self.assertIn("0af7651916cd43dd8448eb211c80319c", between(page, "OpenTelemetry trace", "</div>"))

    def test_actions(self) -> None:
        """Replay, discard and cancel are operations of the session's user; the outcome is shown once asked for."""
        browser = self.world.signed_in()
        event_id = self.world.die()
        page = browser.follow(browser.act(f"/deliveries/{event_id}/replay"))
        self.assertIn("Replayed as trigger_evt_", page)
        self.assertIn("Replayed as</dt>", page)
        new = between(page, "Replayed as ", ".")
        self.assertIn('data-every="2"', browser.page(f"/deliveries/{new}"))
        self.assertIn("Cancelled.", browser.follow(browser.act(f"/deliveries/{new}/cancel")))
        refused = browser.follow(browser.act(f"/deliveries/{new}/cancel"))
        self.assertIn('class="notice bad"', refused)
        other = self.world.die("a", "d2")
        self.assertIn("Discarded.", browser.follow(browser.act(f"/deliveries/{other}/discard")))
        done = [(each["operation"], each["outcome"]) for each in self.world.audited()[1:]]
        self.assertEqual(done, [("replay", "done"), ("cancel", "done"), ("cancel", "failed"), ("discard", "done")])
        self.assertEqual({each["actor"] for each in self.world.audited()}, {self.world.audited()[0]["actor"]})

    def test_export(self) -> None:
        """The fixture is a file of JSON."""
        event_id = self.world.die()
        answer = self.world.signed_in().get(f"/deliveries/{event_id}/fixture.json")
        self.assertEqual(json.loads(answer.body)["format"], "harn-fixture/1")
        self.assertIn(f'attachment; filename="{event_id}.json"', answer.headers["content-disposition"])

    def test_unknown(self) -> None:
        """An event that is not kept is 404; an action on it says so."""
        browser = self.world.signed_in()
        self.assertEqual(browser.get("/deliveries/nothing").status, 404)
        self.assertEqual(browser.get("/deliveries/%3Cb%3E%2F..?part=1").status, 404)
        self.assertEqual(browser.act("/deliveries/nothing/replay").status, 303)

    def test_store_away(self) -> None:
        """While nothing can be written an action says that nothing was changed."""
        event_id, browser = self.world.die(), self.world.signed_in()
        token = browser.token()
        self.world.store.fail_writes = True
        answer = browser.post(f"/deliveries/{event_id}/discard", {"csrf": token})
        self.assertIn("nothing was changed", browser.follow(answer))


class DeadLetterTests(DeliveriesCase):
    def setUp(self) -> None:
        super().setUp()
        self.world.server.background.startService()

    def test_groups(self) -> None:
        """Groups have their count, and lead to their deliveries and to what can be done."""
        browser = self.world.signed_in()
        self.assertIn("Nothing is to be done", browser.page("/dead-letters"))
        ids = [self.world.die("a", f"d{number}") for number in range(3)] + [self.world.die("b", "e")]
        page = browser.page("/dead-letters")
        self.assertIn("<strong>4</strong> dead letters in 2 groups", page)
        links = [
            part.partition('"')[0].replace("&amp;", "&") for part in page.split('<a href="/console/deliveries?')[1:]
        ]
        found = [sum(each in browser.page(f"/deliveries?{link}") for each in ids) for link in links]
        self.assertEqual(sorted(found), [1, 3])
        self.assertIn("<strong>1</strong> dead letter in 1 group", browser.page("/dead-letters?trigger=b"))

    def test_pages_of_groups(self) -> None:
        """Of many groups a page shows so many, with the way to the others; what is done with all counts all."""
        self.patch(dead_letters, "PER_PAGE", 1)
        for trigger_id in ("a", "b"):
            self.world.die(trigger_id, "d")
            self.world.clock.advance(1)
        browser = self.world.signed_in()
        for number, (trigger_id, other) in enumerate((("b", "a"), ("a", "b")), 1):
            page = browser.page(f"/dead-letters?page={number}")
            self.assertIn("<strong>2</strong> dead letters in 2 groups", page)
            self.assertIn(f"Page {number} of 2", page)
            self.assertIn(f'<td><a class="trigger" href="/console/triggers/{trigger_id}">', page)
            self.assertNotIn(f'<td><a class="trigger" href="/console/triggers/{other}">', page)
        self.assertIn("There are not so many groups any more.", browser.page("/dead-letters?page=3"))

    def test_replay_of_a_group(self) -> None:
        """The question counts; the answer is a job, with the operation's audit record."""
        for number in range(3):
            self.world.die("a", f"d{number}")
        self.world.die("b", "e")
        browser = self.world.signed_in()
        link = between(browser.page("/dead-letters?trigger=a"), '<td class="actions"><a class="button " href="', '"')
        asked = browser.page(link.replace("&amp;", "&").removeprefix("/console"))
        self.assertIn("Replay 3 dead letters?", asked)
        fields = {
            each.partition('"')[0]: between(each, 'value="', '"').replace("&#34;", '"').replace("&#39;", "'")
            for each in asked.partition('class="ask"')[2].split('type="hidden" name="')[1:]
        }
        answer = browser.post("/dead-letters/change", {**fields, "rate_limit": ""})
        page = browser.follow(answer)
        self.assertIn("3 of 3 replayed; job 1 is done.", page)
        self.assertIn("Progress of job 1", page)
        record = self.world.audited()[-1]
        self.assertEqual((record["operation"], record["counts"]["replayed"]), ("replay", 3))
        self.assertIn("in 1 group<", browser.page("/dead-letters"))

    def test_wrong_change(self) -> None:
        """An unknown operation, or a rate that cannot be read, changes nothing."""
        self.world.die()
        browser = self.world.signed_in()
        self.assertEqual(browser.get("/dead-letters/change?operation=erase").status, 400)
        page = browser.follow(browser.act("/dead-letters/change", operation="discard", rate_limit="fast"))
        self.assertIn("must be a rate", page)
        self.assertEqual(browser.act("/dead-letters/change", operation="erase").status, 400)
        self.assertIn("<strong>1</strong> dead letter", browser.page("/dead-letters"))

    def test_job(self) -> None:
        """A job that continues can be paused, resumed and cancelled."""
        for number in range(3):
            self.world.die("a", f"d{number}")
        browser = self.world.signed_in()
        answer = browser.act("/dead-letters/change", operation="discard", trigger="a", rate_limit="1/h")
        self.assertIn("job 1 is running", browser.follow(answer))
        self.assertIn("Job 1 is paused.", browser.follow(browser.act("/jobs/1/pause")))
        self.assertIn("Job 1 is running again.", browser.follow(browser.act("/jobs/1/resume")))
        self.assertIn("Job 1 is cancelled", browser.follow(browser.act("/jobs/1/cancel")))
        self.assertIn('class="notice bad"', browser.follow(browser.act("/jobs/1/cancel")))
