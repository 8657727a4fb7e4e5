"""Live pages: streams of parts, what they cost, and how they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from harn.auth.credentials import Credentials
from harn.auth.keys import NamedKey, digest_key, make_key
from harn.console.live import HEARTBEAT, LATE, MOST_DRAWINGS, MOST_OF_SESSION, MOST_STREAMS, TURN, framed
from harn.console.overview import Overview, Overviews
from harn.console.rendering import Renderer
from harn.console.sessions import LIFETIME
from harn.lifecycle import StoreChanged
from harn.operations.model import Role
from harn.testing.clients import Wire, request_bytes
from tests.console.test_sign_in import ConsoleCase
from tests.console.world import HOST, TOKEN, Browser, ConsoleWorld, between
from tests.reload.world import fake, github

OVER = ("over", "")


class Viewer:
    """One open page: its connection, and what came on it."""

    def __init__(self, world: ConsoleWorld, browser: Browser, path: str = "/") -> None:
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        self.wire = Wire(world.site, IPv4Address("TCP", "10.0.0.1", 31337))
        target = f"/console{path}{'&' if '?' in path else '?'}stream=1"
        self.wire.send(request_bytes("GET", target, {"Host": HOST, "Cookie": cookies}))
        world.clock.advance(0)
        head, _, rest = self.wire.raw().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.begin, _, first_events = rest.partition(b"\n\n")
        self._left = first_events if self.status == 200 else b""

    def events(self) -> list[tuple[str, str]]:
        """Return the names and texts of the events since the last call; a comment is an event of no name and text."""
        text, self._left = (self._left + self.wire.raw()).decode(), b""
        found = []
        for block in text.split("\n\n")[:-1]:
            lines = block.split("\n")
            name = "".join(line.removeprefix("event: ") for line in lines if line.startswith("event: "))
            data = "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))
            found.append((name, data))
        return found


class LiveCase(ConsoleCase):
    def setUp(self) -> None:
        super().setUp()
        self.drawn: Counter[str] = Counter()
        render = Renderer.render

        def counted(renderer: Renderer, template: str, values: Mapping[str, Any]) -> bytes:
            self.drawn[template] += 1
            return render(renderer, template, values)

        self.patch(Renderer, "render", counted)

    def view(self, path: str = "/", browser: Browser | None = None) -> Viewer:
        """Open a page."""
        viewer = Viewer(self.world, self.world.signed_in() if browser is None else browser, path)
        self.assertEqual(viewer.status, 200, viewer.begin)
        return viewer

    def turns(self, number: int = 1) -> None:
        """Run so many looks of the server at its streams."""
        for _ in range(number):
            self.world.clock.advance(TURN)

    def take(self, key: str) -> None:
        """Accept an event."""
        self.successResultOf(self.world.take("a", key))
        self.world.clock.advance(0)


class StreamTests(LiveCase):
    def test_answer(self) -> None:
        """A stream is as guarded as a page, is not cached or buffered, and begins with the part as it is now."""
        browser = self.world.signed_in()
        viewer = self.view("/", browser)
        self.assertEqual(viewer.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertTrue(viewer.headers["content-security-policy"].startswith("default-src 'none';"))
        for name, value in (("cache-control", "no-store"), ("connection", "close"), ("x-accel-buffering", "no")):
            self.assertEqual(viewer.headers[name], value)
        self.assertNotIn("content-length", viewer.headers)
        self.assertEqual(viewer.begin, b"retry: 3000")
        self.assertEqual(viewer.events(), [("", browser.page("/?part=1").rstrip("\n"))])

    def test_each_viewer_has_its_own_token(self) -> None:
        """A part is drawn once for all of a role, and its forms carry the token of each one's session."""
        dead = self.world.die()
        browsers = [self.world.signed_in() for _ in range(3)]
        viewers = [self.view(f"/deliveries/{dead}", browser) for browser in browsers]
        self.assertEqual(self.drawn["delivery_part.html"], 1)
        found = [between(viewer.events()[0][1], 'name="csrf" value="', '"') for viewer in viewers]
        self.assertEqual(found, [browser.token() for browser in browsers])

    def test_what_happens_is_drawn_together(self) -> None:
        """However much happens within a second, its viewers get one drawing of it; then nothing until more happens."""
        viewers = [self.view() for _ in range(3)]
        self.turns()
        self.drawn.clear()
        for viewer in viewers:
            viewer.events()
        for number in range(40):
            self.take(f"d{number}")
        self.assertEqual([viewer.events() for viewer in viewers], [[], [], []])
        self.turns()
        for viewer in viewers:
            (event,) = viewer.events()
            self.assertIn("<span>In flight</span><strong>", event[1])
        self.assertEqual(self.drawn["now_part.html"], 1)
        self.turns(3)
        self.assertEqual([viewer.events() for viewer in viewers], [[], [], []])

    def test_parts_that_deliveries_do_not_change(self) -> None:
        """Deliveries draw no part that does not show any."""
        viewer = self.view("/reloads")
        viewer.events()
        self.drawn.clear()
        for number in range(5):
            self.take(f"d{number}")
            self.turns()
        self.assertEqual(self.drawn, {})

    def test_servers(self) -> None:
        """The page of servers follows their outstanding deliveries, though no event reports those."""
        viewer = self.view("/servers")
        viewer.events()
        self.take("d")
        self.turns(4)
        self.assertIn('<td class="n">1</td>', viewer.events()[-1][1])

    def test_pause(self) -> None:
        """A pause is drawn at once, and so is its end."""
        viewers = [self.view(path) for path in ("/", "/triggers/a")]
        browser = self.world.signed_in()
        for action, drawn in (("pause", True), ("resume", False)):
            for viewer in viewers:
                viewer.events()
            self.turns(3)
            browser.act(f"/triggers/a/{action}")
            self.turns(2)
            for viewer in viewers:
                self.assertEqual('class="state paused"' in viewer.events()[-1][1], drawn)

    def test_other_servers(self) -> None:
        """What another server on the same store has changed is drawn at once."""
        viewer = self.view()
        self.turns()
        viewer.events()
        self.drawn.clear()
        self.turns(2)
        self.assertEqual(self.drawn["now_part.html"], 0)
        self.world.lifecycle.emit(StoreChanged(frozenset(("pauses",))))
        self.turns()
        self.assertEqual(self.drawn["now_part.html"], 1)

    def test_who_comes_later(self) -> None:
        """A page that is opened after something has happened never gets an earlier drawing: it shows more already."""
        browser = self.world.signed_in()
        first = self.view("/reloads", browser)
        self.turns(2)
        first.events()
        for number, path in enumerate(("/reloads?again=1", "/reloads"), 2):
            self.world.manifest(github("a"), fake("b"), fake(f"c{number}"))
            self.assertTrue(self.successResultOf(self.world.reload()).ok)
            later = self.view("/reloads", browser)
            self.assertIn(f"<dd>{number}</dd>", browser.page(path))
            self.turns(3)
            shown = [event[1] for event in later.events()]
            self.assertTrue(shown)
            self.assertEqual({f"<dd>{number}</dd>" in each for each in shown}, {True})
        same = self.view("/reloads", browser)
        self.turns(12)
        self.assertIn("<dd>3</dd>", same.events()[0][1])

    def test_nobody_looks(self) -> None:
        """Without an open page nothing is drawn, and no timer runs."""
        before = len(self.world.clock.getDelayedCalls())
        self.take("d1")
        self.turns(10)
        self.assertEqual(self.drawn, {})
        viewer = self.view()
        self.drawn.clear()
        viewer.wire.drop()
        self.take("d2")
        self.turns(2)
        self.assertEqual(self.drawn, {})
        self.assertEqual(len(self.world.clock.getDelayedCalls()), before)

    def test_search(self) -> None:
        """The stream of a search shows what that finds; other options of the query do not make another part."""
        browser = self.world.signed_in()
        viewers = [self.view(f"/deliveries?state=dead{more}", browser) for more in ("", "&part=1", "&outcome=x")]
        self.assertIn("No delivery matches", viewers[0].events()[0][1])
        self.assertEqual(self.drawn["deliveries_part.html"], 1)
        dead = self.world.die()
        self.turns(3)
        for viewer in viewers:
            self.assertIn(dead, viewer.events()[-1][1])

    def test_heartbeat(self) -> None:
        """A stream without news gets a comment, so that proxies do not end it."""
        viewer = self.view("/reloads")
        viewer.events()
        self.turns(int(HEARTBEAT) + 2)
        self.assertEqual(viewer.events(), [("", "")])

    def test_refusals(self) -> None:
        """Without a session it is 401, of a page that has none 404; HEAD has no body that continues."""
        self.assertEqual(self.world.browser().get("/?stream=1").status, 401)
        browser = self.world.signed_in()
        for path in ("/deliveries/x/fixture.json", "/reloads/1", "/dead-letters/change", "/nowhere"):
            self.assertEqual(browser.get(f"{path}?stream=1").status, 404, path)
        wire = Wire(self.world.site)
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        wire.send(request_bytes("HEAD", "/console/?stream=1", {"Host": HOST, "Cookie": cookies}))
        self.world.clock.advance(0)
        (answer,) = wire.answers(heads=True)
        self.assertIn("content-length", answer.headers)

    def test_text_is_one_event(self) -> None:
        """No line of a part ends or names an event."""
        self.assertEqual(framed(b"a\nevent: over\r\n\rb\n"), b"data: a\ndata: event: over\ndata: \ndata: b\n\n")


class BoundTests(LiveCase):
    def test_streams_of_a_session(self) -> None:
        """A session has so many streams, so that its browser has connections left; one that ends makes room."""
        browser = self.world.signed_in()
        viewers = [self.view("/", browser) for _ in range(MOST_OF_SESSION)]
        refused = browser.get("/?stream=1")
        self.assertEqual((refused.status, refused.headers["retry-after"]), (503, "60"))
        self.assertIn(b"live pages, which is the limit", refused.body)
        self.assertEqual(browser.get("/?part=1").status, 200)
        self.view("/", self.world.signed_in())
        viewers[0].wire.half_close()
        self.view("/", browser)

    def test_streams_of_a_server(self) -> None:
        """However many sessions there are, so many streams are open, each page of its own; more are refused."""
        sessions = [self.world.signed_in() for _ in range(MOST_STREAMS // MOST_OF_SESSION)]
        viewers = [
            self.view(f"/triggers?q={number}", sessions[number % len(sessions)]) for number in range(MOST_STREAMS)
        ]
        last = self.world.signed_in()
        self.assertEqual(last.get("/?stream=1").status, 503)
        viewers[7].wire.drop()
        self.view("/", last)

    def test_cost_of_many(self) -> None:
        """However many pages are open, so many are drawn a second, each in its turn."""
        sessions = [self.world.signed_in() for _ in range(5)]
        viewers = [self.view(f"/triggers?q={number}", sessions[number // 4]) for number in range(MOST_DRAWINGS * 3)]
        self.turns(3)
        self.drawn.clear()
        self.take("d")
        for number in range(1, 4):
            self.turns()
            self.assertEqual(self.drawn["triggers_part.html"], number * MOST_DRAWINGS)
        self.assertEqual({len(viewer.events()) > 0 for viewer in viewers}, {True})

    def test_late(self) -> None:
        """While a part cannot be drawn for long its viewers are notified; they get it once it is drawn."""
        viewer = self.view()
        viewer.events()
        waiting: Deferred[None] = Deferred()
        draw = Overviews.read

        async def late(overviews: Overviews, *given: Any, **more: Any) -> Overview:
            await waiting
            return await draw(overviews, *given, **more)

        self.patch(Overviews, "read", late)
        self.take("d")
        self.turns(int(LATE) + 3)
        found = [each for each in viewer.events() if each != ("", "")]
        self.assertEqual(found, [("stale", "The server has not answered for 15 s.")])
        waiting.callback(None)
        self.turns()
        self.assertIn("In flight", viewer.events()[-1][1])

    def test_slow_reader(self) -> None:
        """A client that does not read gets nothing until it does, then what is newest; after a minute it is cut off."""
        viewer = self.view()
        viewer.events()
        viewer.wire.protocol.pauseProducing()
        for number in range(5):
            self.take(f"d{number}")
            self.turns(2)
        self.assertEqual(viewer.events(), [])
        viewer.wire.protocol.resumeProducing()
        self.turns()
        (event,) = viewer.events()
        self.assertIn("<span>In flight</span><strong>5</strong>", event[1])
        viewer.wire.protocol.pauseProducing()
        self.turns(62)
        self.assertTrue(viewer.wire.aborted)

    def test_bytes_after_the_request(self) -> None:
        """What a client sends on its stream is discarded."""
        viewer = self.view()
        viewer.events()
        viewer.wire.send(request_bytes("GET", "/console/login", {"Host": HOST}) * 500)
        self.turns(2)
        self.assertFalse(viewer.wire.closing)
        self.take("d")
        self.turns(2)
        self.assertIn("In flight", viewer.events()[-1][1])


class EndTests(LiveCase):
    def assert_over(self, viewer: Viewer) -> None:
        """Fail unless a stream has ended by now, with no more than that said."""
        self.take("late")
        self.turns(2)
        self.assertEqual(viewer.events(), [OVER])
        self.assertTrue(viewer.wire.closing)

    def test_key_is_taken_away(self) -> None:
        """When a key is revoked its streams end at once, before anything more is sent; others continue."""
        viewer, other = self.view(), self.view("/", self.world.signed_in(TOKEN))
        for each in (viewer, other):
            each.events()
        self.world.credentials.replace(Credentials(keys=(b"second-key",)))
        self.assert_over(viewer)
        self.assertIn("In flight", other.events()[-1][1])

    def test_session_ends(self) -> None:
        """A stream ends when its user signs out, and after the life of its session."""
        browser = self.world.signed_in()
        viewer = self.view("/", browser)
        viewer.events()
        browser.act("/logout")
        self.assert_over(viewer)
        viewer = self.view()
        viewer.events()
        self.world.clock.advance(LIFETIME)
        self.assert_over(viewer)

    def test_role_changes(self) -> None:
        """When a key gets another role its streams end, and the page comes again with what it may do now."""
        ring, made = self.world.ring, make_key()
        key = NamedKey(name="ana", role=Role.READ, digest=digest_key(made), made_at=0.0, made_by="token")
        ring.replace((key,))
        dead = self.world.die()
        viewer = self.view(f"/deliveries/{dead}", self.world.signed_in(made))
        admin = self.view(f"/deliveries/{dead}")
        self.assertEqual(["disabled" in each.events()[0][1] for each in (viewer, admin)], [True, False])
        ring.replace((NamedKey(name="ana", role=Role.OPERATE, digest=key.digest, made_at=0.0, made_by="token"),))
        self.assert_over(viewer)

    def test_reload(self) -> None:
        """A stream lives through a reload, which it shows; where its trigger is gone the page must be loaded again."""
        viewers = {path: self.view(path) for path in ("/", "/triggers/b", "/reloads")}
        for viewer in viewers.values():
            viewer.events()
        self.world.manifest(github("a"), fake("c"))
        self.assertTrue(self.successResultOf(self.world.reload()).ok)
        self.turns(2)
        self.assertIn('<a href="/console/reloads">2</a>', viewers["/"].events()[-1][1])
        self.assertIn("<dt>Generation</dt><dd>2</dd>", viewers["/reloads"].events()[-1][1])
        self.turns(5)
        self.assertEqual(viewers["/triggers/b"].events()[-1], OVER)
        self.assertTrue(viewers["/triggers/b"].wire.closing)

    def test_stop(self) -> None:
        """A server that goes down ends its streams, and does not wait for them; it begins none."""
        browser = self.world.signed_in()
        viewers = [self.view() for _ in range(5)]
        viewers[0].wire.protocol.pauseProducing()
        quiet = self.world.site.quiesce()
        self.successResultOf(quiet)
        for viewer in viewers:
            self.assertTrue(viewer.wire.closing)
        self.assertEqual(browser.get("/?stream=1").status, 503)

    def test_hand_over(self) -> None:
        """A server that hands over to another program ends its streams at once, so that pages find that."""
        viewer = self.view()
        self.world.site.retire(5.0)
        self.assertTrue(viewer.wire.closing)

    def test_close(self) -> None:
        """The feature ends what is open, and leaves no timer."""
        self.world.server.background.startService()
        before = len(self.world.clock.getDelayedCalls())
        viewer = self.view()
        self.successResultOf(self.world.server.background.stopService())
        self.assertTrue(viewer.wire.closing)
        self.assertLessEqual(len(self.world.clock.getDelayedCalls()), before)

    def test_close_while_drawing(self) -> None:
        """What is being drawn when the server stops is given up, without an error and without waiting for it."""
        self.world.server.background.startService()
        viewer = self.view()
        viewer.events()
        self.patch(Overviews, "read", lambda *given, **more: Deferred())
        self.take("d")
        self.turns(2)
        self.successResultOf(self.world.server.background.stopService())
        self.assertTrue(viewer.wire.closing)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_store_away(self) -> None:
        """While a part cannot be drawn its viewers get the reason; then it comes again."""
        viewer = self.view("/deliveries")
        viewer.events()
        self.world.store.fail_reads = True
        self.turns(12)
        self.assertEqual(
            viewer.events(), [("stale", "the event log cannot be reached; the server's log has the reason")]
        )
        self.world.store.fail_reads = False
        self.turns(12)
        self.assertIn("No deliveries yet", viewer.events()[-1][1])
