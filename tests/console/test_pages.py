"""The pages of what happens now, of triggers and of reloads."""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from harn.console import plots
from harn.console.overview import MOST_KEPT
from harn.console.records import MOST_RECORDS
from harn.console.reloads import TOPIC, mark
from harn.console.traffic import BOUNDS, Traffic, percentile
from harn.console.triggers import PER_PAGE, lines_of_trigger
from harn.lifecycle import Accepted, AcceptedDelivery, Lifecycle
from harn.orchestrator.status import ServerSnapshot, ServerStatus
from harn.testing.manifests import manifest_text
from harn.testing.stores.kit import new_delivery
from tests.console.test_sign_in import ConsoleCase
from tests.console.world import between
from tests.reload.world import fake, github


class NowTests(ConsoleCase):
    def test_rates(self) -> None:
        """What was accepted, done and failed within the last minute is counted, and drawn."""
        for number in range(12):
            taking = self.world.take("a", f"d{number}")
            self.successResultOf(taking)
        self.world.clock.advance(0.5)
        while self.world.calls:
            self.world.calls[-1].returns()
            self.world.clock.advance(0)
        self.world.die("a", "dead")
        self.world.clock.advance(2)
        page = self.world.signed_in().page("/")
        self.assertIn("<span>Accepted</span><strong>0.22</strong>", page)  # 13 within a minute
        self.assertIn("<span>Done</span><strong>0.20</strong>", page)
        self.assertRegex(between(page, "p95</span><strong>", "</strong>"), r"^5\d\d ms$")
        self.assertIn('<strong><a href="/console/dead-letters">1</a></strong>', page)
        self.assertNotIn("Everything is done", page)
        self.assertIn('<a href="/console/dead-letters">1 dead letter</a> can be replayed', page)
        for name in ("accepted", "done", "failed"):
            line = between(page, f'<polyline class="{name}" points="', '"')
            self.assertEqual(len(line.split()), 59)
            self.assertNotEqual({point.partition(",")[2] for point in line.split()}, {"120.0"}, name)
        self.world.clock.advance(400)
        page = self.world.signed_in().page("/")
        self.assertIn("<span>Accepted</span><strong>0</strong>", page)
        self.assertIn("p95</span><strong>-</strong>", page)

    def test_work(self) -> None:
        """Triggers with something to do are listed with it; the part is the same without the frame."""
        browser = self.world.signed_in()
        self.assertIn("Everything is done", browser.page("/"))
        self.successResultOf(self.world.take("a", "d"))
        self.world.clock.advance(2)
        part = browser.page("/?part=1")
        self.assertNotIn("<html", part)
        self.assertIn('<a class="trigger" href="/console/triggers/a">a</a></td><td class="n">1</td>', part)
        self.assertIn("<strong>Not ready:</strong> starting", part)

    def test_drains(self) -> None:
        """A draining version is listed; its deliveries can be given up."""
        self.successResultOf(self.world.take("a", "d"))
        self.world.manifest(github("a", extra="[triggers.retry]\nmax = 9"), fake("b"))
        self.assertTrue(self.successResultOf(self.world.reload()).ok)
        browser = self.world.signed_in()
        self.assertIn("<td>a@v1</td>", browser.page("/"))
        done = browser.follow(browser.act("/drains/cancel", binding="a@v1"))
        self.assertIn("deliveries of a@v1 were given up.", done)
        self.assertIn('class="notice bad"', browser.follow(browser.act("/drains/move", binding="x@v1")))

    def test_pause(self) -> None:
        """The whole server can be paused and resumed."""
        browser = self.world.signed_in()
        page = browser.follow(browser.act("/pause", **{"for": "1h"}))
        self.assertIn("Paused:", page)
        self.assertIn("<strong>The whole server is paused</strong>, by key:", page)
        self.assertNotIn("<h2>Held up</h2>", page)
        browser.act("/triggers/a/pause")
        self.assertIn(", until it is resumed, by key:", browser.page("/"))
        browser.act("/triggers/a/resume")
        self.assertIn("must be a duration", browser.follow(browser.act("/pause", **{"for": "soon"})))
        self.assertIn("Resumed.", browser.follow(browser.act("/resume")))
        self.assertEqual([each["operation"] for each in self.world.audited()[1:]][::3], ["pause", "resume"])

    def test_accepted_together(self) -> None:
        """Events that one write brought are counted each."""
        lifecycle = Lifecycle()
        traffic = Traffic(self.world.clock, lifecycle)
        accepted = [
            AcceptedDelivery("a@v1", number, new_delivery(f"d{number}", trigger_id="a")) for number in range(60)
        ]
        lifecycle.emit(Accepted.of(accepted))
        self.world.clock.advance(1)
        self.assertEqual(traffic.rates().accepted_now, 1.0)

    def test_cost(self) -> None:
        """However often pages are loaded, each is read once a second, and once after an action."""
        browser = self.world.signed_in()
        read: list[ServerStatus] = []
        snapshot = ServerStatus.snapshot

        def counted(status: ServerStatus) -> ServerSnapshot:
            read.append(status)
            return snapshot(status)

        self.patch(ServerStatus, "snapshot", counted)
        for path in ("/", "/?outcome=x", "/triggers/a?outcome=x", "/triggers?outcome=") * 3:
            browser.page(path)
        self.assertEqual(len(read), 3)
        shown = browser.act("/triggers/a/pause").headers["location"].removeprefix("/console")
        for _ in range(3):
            self.assertIn('class="state paused"', browser.page(shown))
        self.assertEqual(len(read), 4)
        for number in range(2 * MOST_KEPT):
            browser.page(f"/triggers?q={number}")
        self.assertEqual(len(read), 4 + 2 * MOST_KEPT)
        browser.page(f"/triggers?q={2 * MOST_KEPT - 1}")
        self.assertEqual(len(read), 4 + 2 * MOST_KEPT)


class TriggerTests(ConsoleCase):
    def test_list(self) -> None:
        """Each trigger is listed with its figures; a search finds by id and provider."""
        self.world.die("a", "d")
        browser = self.world.signed_in()
        page = browser.page("/triggers")
        self.assertIn("2 triggers", page)
        self.assertIn('<a href="/console/dead-letters?trigger=a">1</a>', page)
        self.assertIn("1 trigger<", browser.page("/triggers?q=fak"))
        self.assertIn("No trigger has", browser.page("/triggers?q=%3Cb%3E"))

    def test_pages(self) -> None:
        """Of many triggers a page shows so many, with the way to the others."""
        self.world.manifest(*(fake(f"t{number:03}") for number in range(PER_PAGE + 20)))
        self.assertTrue(self.successResultOf(self.world.reload(force=True)).ok)
        browser = self.world.signed_in()
        first = browser.page("/triggers?q=t")
        self.assertEqual(first.count('href="/console/triggers/t'), PER_PAGE)
        self.assertIn("page 1 of 2", first)
        more = between(first, '<a href="/console', '" rel="next">').rpartition('<a href="/console')[2] or between(
            first.partition("page 1 of 2")[2], 'href="/console', '"'
        )
        self.assertIn("page 2 of 2", browser.page(more.replace("&amp;", "&")))
        self.assertIn("page 2 of 2", browser.page("/triggers?q=t&page=999"))
        self.assertIn("No trigger has anything to do", browser.page("/triggers?busy=true"))
        self.assertIn("with something to do has “t”", browser.page("/triggers?busy=true&q=t"))
        self.successResultOf(self.world.take("t007"))
        self.world.clock.advance(2)
        self.assertIn("1 trigger<", browser.page("/triggers?busy=true"))

    def test_one(self) -> None:
        """A trigger shows its versions, its lines of the manifest and the source of its handler."""
        page = self.world.signed_in().page("/triggers/a")
        for text in ("v1", "[[triggers]]", "id = &#34;a&#34;", "def on_event(event)", "Pause", "Fire"):
            self.assertIn(text, page)
        self.assertNotIn("id = &#34;b&#34;", page)
        self.assertEqual(self.world.signed_in().get("/triggers/zzz").status, 404)

    def test_pause(self) -> None:
        """A trigger can be paused for a while, and resumed; the page shows that it is."""
        browser = self.world.signed_in()
        page = browser.follow(browser.act("/triggers/a/pause", **{"for": "1h"}))
        self.assertIn("Paused:", page)
        self.assertIn('class="state paused"', page)
        self.assertIn("rate", browser.follow(browser.act("/triggers/a/resume", rate="fast")))
        self.assertNotIn('class="state paused"', browser.follow(browser.act("/triggers/a/resume", rate="5/s")))
        self.assertIn('class="notice bad"', browser.follow(browser.act("/triggers/a/pause", **{"for": "x"})))

    def test_lines(self) -> None:
        """The lines of a trigger are its own, with the tables below it, wherever they stand."""
        manifest = manifest_text(20, extra="[triggers.flow]\nx = 1")
        for number in (0, 7, 19):
            found = lines_of_trigger(manifest, f"t{number}")
            assert found is not None
            own = found.text.splitlines()
            self.assertEqual(own[0], "[[triggers]]")
            self.assertEqual(sum("[[triggers]]" in line for line in own), 1)
            self.assertIn(f'id = "t{number}"', own)
            self.assertEqual(manifest.splitlines()[found.first - 1 : found.first - 1 + len(own)], own)
        self.assertIsNone(lines_of_trigger(manifest, "t"))
        self.assertIsNone(lines_of_trigger("", "t"))


class ReloadTests(ConsoleCase):
    def test_live(self) -> None:
        """What is live is shown with who adopted it."""
        page = self.world.signed_in().page("/reloads")
        self.assertIn("<dt>Generation</dt><dd>1</dd>", page)
        self.assertIn("Nothing was recorded yet", page)

    def test_plan_reload_and_roll_back(self) -> None:
        """A plan changes nothing; a reload and a rollback do, as the user of the session."""
        self.world.manifest(github("a"), fake("c"))
        browser = self.world.signed_in()
        page = browser.follow(browser.act("/reloads/plan"))
        self.assertIn("nothing was changed", page)
        self.assertIn('<li class="added"><a class="trigger" href="/console/triggers/c">c</a>', page)
        self.assertIn('<li class="removed"><a class="trigger" href="/console/triggers/b">b</a>', page)
        self.assertEqual(self.world.coordinator.generation, 1)
        page = browser.follow(browser.act("/reloads/reload"))
        self.assertIn("Generation 2 serves.", page)
        self.assertIn("console, key:", page)
        diff = browser.page("/reloads/2")
        self.assertIn("From generation 1 to 2", diff)
        self.assertIn('<span class="cut">-id = &#34;b&#34;</span>', diff)
        page = browser.follow(browser.act("/reloads/rollback", generation="1"))
        self.assertIn("Rolled back: generation 3 serves.", page)
        done = [(each["operation"], each["outcome"]) for each in self.world.audited()[1:]]
        self.assertEqual(done, [("reload", "done"), ("rollback", "done")])

    def test_failure(self) -> None:
        """A reload that fails shows each problem with its place, escaped."""
        self.world.write("harn.toml", '[orchestrator]\nallow_empty = true\n"<b>" = 1\n')
        browser = self.world.signed_in()
        page = browser.follow(browser.act("/reloads/reload"))
        self.assertIn('class="notice bad"', page)
        self.assertIn("<code>harn.toml:3</code>", page)
        self.assertIn("The last reload that failed", page)
        self.assertNotIn("<b>", page)
        self.assertEqual(self.world.coordinator.generation, 1)

    def test_source_of_a_failure(self) -> None:
        """A problem is shown with its line and carets below, as by ``harn check``, until the file is changed."""
        text = "[orchestrator]\nallow_empty = true\nallow_emty = 1\n"
        self.world.write("harn.toml", text)
        path = Path(self.world.root, "harn.toml")
        os.utime(path, (self.world.clock.seconds() - 5,) * 2)
        browser = self.world.signed_in()
        drawn = "    3 | allow_emty = 1\n      | ^^^^^^^^^^"
        for page in (
            browser.follow(browser.act("/reloads/reload")),
            browser.page("/reloads"),
            browser.page("/reloads?part=1"),
        ):
            self.assertIn(drawn, page)
        os.utime(path, (self.world.clock.seconds() + 5,) * 2)
        page = browser.page("/reloads")
        self.assertIn("allow_emty", page)
        self.assertNotIn(drawn, page)

    def test_ramp(self) -> None:
        """A reload can begin a ramp; it is finished or aborted on the pages of reloads and of its trigger."""
        browser = self.world.signed_in()
        for number, (operation, said) in enumerate(
            (("finish", "All new deliveries of a go to a@v2."), ("abort", "new deliveries of a go to a@v2.")), 1
        ):
            self.world.manifest(github("a", extra=f"[triggers.retry]\nmax = {number}"), fake("b"))
            self.assertIn(
                f"Generation {number + 1} serves.", browser.follow(browser.act("/reloads/reload", ramp="10%"))
            )
            for page in (browser.page("/reloads"), browser.page("/triggers/a?part=1")):
                self.assertIn(f'<td class="n">10%</td><td>a@v{number + 1}</td><td>a@v{number}</td>', page)
                self.assertIn("/console/ramps/abort", page)
            self.assertNotIn("/console/ramps", browser.page("/triggers/b"))
            answer = browser.act(f"/ramps/{operation}", trigger="a", page="trigger" if number == 1 else "reloads")
            self.assertTrue(
                answer.headers["location"].startswith(f"/console/{'triggers/a' if number == 1 else 'reloads'}?")
            )
            self.assertIn(said, browser.follow(answer))
        self.assertNotIn("/console/ramps/abort", browser.page("/reloads"))
        self.assertIn("aborted", browser.page("/reloads"))
        self.assertIn('class="notice bad"', browser.follow(browser.act("/ramps/finish", trigger="a")))
        self.assertEqual(browser.act("/ramps/abort").status, 400)
        self.assertIn("must be a share", browser.follow(browser.act("/reloads/reload", ramp="much")))
        done = [(each["operation"], each["outcome"]) for each in self.world.audited()[1:]]
        expected = [("reload", "done"), ("ramps.finish", "done"), ("reload", "done"), ("ramps.abort", "done")]
        self.assertEqual(done, [*expected, ("ramps.finish", "failed")])

    def test_history(self) -> None:
        """The newest records are on the first page, and each page leads to the one before it."""
        for number in range(MOST_RECORDS + 5):
            payload = {"status": "ok", "source": f"deploy-{number:02}", "actor": "key:1", "summary": {"added": []}}
            self.successResultOf(self.world.store.event_log.append(TOPIC, "reload_succeeded", payload))
        browser = self.world.signed_in()
        page = browser.page("/reloads")
        shown = re.findall(r"deploy-(\d\d)", page)
        self.assertEqual(shown, [f"{number:02}" for number in range(MOST_RECORDS + 4, 4, -1)])
        self.assertNotIn(">Newest<", page)
        older = browser.page(
            between(page, '<a href="/console', '" rel="next">Older').rpartition('<a href="/console')[2]
        )
        self.assertEqual(re.findall(r"deploy-(\d\d)", older), ["04", "03", "02", "01", "00"])
        self.assertIn(">Newest<", older)
        self.assertNotIn(">Older reloads<", older)

    def test_history_between_other_records(self) -> None:
        """Records of other topics use up numbers: a page is full all the same, and the next continues where it ends."""
        append = self.world.store.event_log.append
        for number in range(MOST_RECORDS + 5):
            payload = {"status": "ok", "source": f"deploy-{number:02}", "actor": "key:1", "summary": {"added": []}}
            self.successResultOf(append(TOPIC, "reload_succeeded", payload))
            for _ in range(number):
                self.successResultOf(append("audit.test", "kind", {}))
        browser = self.world.signed_in()
        page = browser.page("/reloads")
        newest = [f"{number:02}" for number in range(MOST_RECORDS + 4, 4, -1)]
        self.assertEqual(re.findall(r"deploy-(\d\d)", page), newest)
        older = browser.page(
            between(page, '<a href="/console', '" rel="next">Older').rpartition('<a href="/console')[2]
        )
        self.assertEqual(re.findall(r"deploy-(\d\d)", older), ["04", "03", "02", "01", "00"])

    def test_many(self) -> None:
        """A plan and a difference of very many triggers name the first of them, and how many more there are."""
        self.world.manifest(*(fake(f"t{number:03}") for number in range(120)))
        browser = self.world.signed_in()
        page = browser.follow(browser.act("/reloads/plan"))
        self.assertIn('<li class="added">70 more</li>', page)
        browser.act("/reloads/reload", force="true")
        page = browser.page("/reloads/2")
        self.assertIn("and 20 more", page)

    def test_wrong(self) -> None:
        """A field that cannot be read, and a confirmation of nothing, are reported."""
        browser = self.world.signed_in()
        self.assertIn("confirm_within", browser.follow(browser.act("/reloads/reload", confirm_within="soon")))
        self.assertIn('class="notice bad"', browser.follow(browser.act("/reloads/confirm")))
        self.assertIn('class="notice bad"', browser.follow(browser.act("/reloads/rollback", generation="77")))
        self.assertEqual(browser.get("/reloads/77").status, 404)


class DrawingTests(SynchronousTestCase):
    def test_plot(self) -> None:
        """Lines fit under a round number, which is never 0."""
        self.assertEqual([plots.round_up(value) for value in (0, 1, 1.1, 3, 70, 4000)], [1, 1, 2, 5, 100, 5000])
        self.assertEqual(plots.points([0, 5, 10], 10.0), "0.0,120.0 300.0,60.0 600.0,0.0")
        self.assertEqual(plots.draw({"a": []}).lines, {"a": ""})

    def test_bars(self) -> None:
        """The parts of a bar fill it, in order."""
        found = [(bar.start, bar.width) for bar in plots.bars({"parse": 1.0, "swap": 3.0})]
        self.assertEqual(found, [(0.0, 150.0), (150.0, 450.0)])
        self.assertEqual(plots.bars({"parse": 0.0})[0].width, 0.0)

    def test_percentiles(self) -> None:
        """A percentile is the bound of its class; there is none of nothing."""
        counts = [0] * (len(BOUNDS) + 1)
        self.assertIsNone(percentile(counts, 0.5))
        counts[3], counts[10] = 90, 10
        self.assertEqual([percentile(counts, share) for share in (0.5, 0.9, 0.95)], [BOUNDS[3], BOUNDS[3], BOUNDS[10]])
        counts[-1] = 1000
        self.assertEqual(percentile(counts, 0.99), BOUNDS[-1])

    def test_marks(self) -> None:
        """Lines of a diff are marked; its heads are not additions."""
        kinds = [kind for kind, _ in mark("--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n z")]
        self.assertEqual(kinds, ["place", "place", "place", "cut", "add", ""])
