"""Klein pages on our own protocol: what a page writes, and what it reads, through requests of ``twisted.web``."""

from __future__ import annotations

from typing import Any, cast

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.static import Data

from harn.listener.klein_pages import make_app
from harn.listener.place import KleinPlace
from harn.listener.request import HarnRequest
from harn.listener.web import render
from harn.testing.clients import Wire, WireAnswer, request_bytes
from tests.listener.world import World


class Pages(KleinPlace):
    """Pages that write for themselves, as those of any Klein app do."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.waiting: Deferred[bytes] = Deferred(self.seen.append)

    def make_app(self) -> Klein:
        app = make_app()
        add_pages(app, self)
        return app

    def endpoint(self, request: HarnRequest) -> str:
        return "/pages"

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        return (b"GET", b"HEAD", b"POST")

    def body_limit(self, request: HarnRequest) -> int:
        return 1_000_000

    def serve(self, request: HarnRequest) -> None:
        render(request)


def add_pages(app: Klein, pages: Pages) -> None:
    """Add a page of each kind."""

    @app.route("/pages/bytes")
    def text(request: IRequest) -> bytes:
        request.setResponseCode(203)
        request.setHeader(b"X-Page", b"one\r\nX-Evil: 1")
        request.setHeader(b"Content-Type", b"text/html")
        return b"<p>hello"

    @app.route("/pages/pieces")
    def pieces(request: Any) -> None:
        request.write(b"one ")
        request.write(b"two")

    @app.route("/pages/read", methods=["POST"])
    def read(request: Any) -> bytes:
        pages.seen.append((request.content.name if hasattr(request.content, "name") else None, request.args))
        return cast(bytes, request.getHeader(b"x-a").upper() + request.content.read())

    @app.route("/pages/file", branch=True)
    def file(request: IRequest) -> Resource:
        return Data(b"x" * 100_000, "text/plain; charset=ascii")

    @app.route("/pages/later")
    def later(request: IRequest) -> Deferred[bytes]:
        return pages.waiting

    @app.route("/pages/broken")
    def broken(request: IRequest) -> bytes:
        raise KeyError("inner secret")

    @app.route("/pages/producer/<kind>")
    def producer(request: Any, kind: str) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        Counter(request, done, pull=kind == "pull").start()
        return done


class Counter:
    """A producer of five pieces; as a pull producer it waits to be asked for each."""

    def __init__(self, request: Any, done: Deferred[None], *, pull: bool) -> None:
        self.request, self.done, self.pull = request, done, pull
        self.left = 5

    def start(self) -> None:
        self.request.registerProducer(self, not self.pull)
        while not self.pull and self.left:
            self.resumeProducing()

    def resumeProducing(self) -> None:
        self.left -= 1
        self.request.write(b"%d" % self.left)
        if not self.left:
            self.request.unregisterProducer()
            self.done.callback(None)


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.pages = Pages()
        self.world.site.mount("/pages", self.pages)

    def get(self, target: str) -> WireAnswer:
        return self.world.wire().send(request_bytes("GET", target)).answer()

    def assert_kept(self, wire: Wire) -> None:
        self.assertEqual(wire.send(request_bytes("GET", "/health")).answer().body, b"ok")

    def test_written(self) -> None:
        """Status, headers and body are the page's, in one write with the length and our own standing headers."""
        wire = self.world.wire().send(request_bytes("GET", "/pages/bytes"))
        answer = wire.answer()
        self.assertEqual((answer.status, answer.body), (203, b"<p>hello"))
        self.assertEqual((answer.headers["content-type"], answer.headers["content-length"]), ("text/html", "8"))
        self.assertEqual((answer.headers["server"], answer.headers["x-page"]), ("harn", "one X-Evil: 1"))
        self.assertNotIn("x-evil", answer.headers)
        self.assert_kept(wire)

    def test_pieces(self) -> None:
        """A body in pieces is sent with its length, not in chunks."""
        answer = self.get("/pages/pieces")
        self.assertEqual((answer.body, answer.headers["content-length"]), (b"one two", "7"))
        self.assertNotIn("transfer-encoding", answer.headers)

    def test_head(self) -> None:
        """HEAD has the length of GET and no body."""
        wire = self.world.wire().send(request_bytes("HEAD", "/pages/bytes"))
        (answer,) = wire.answers(heads=True)
        self.assertEqual((answer.status, answer.headers["content-length"]), (203, "8"))
        self.assert_kept(wire)

    def test_read(self) -> None:
        """A page reads headers, arguments and a large body, which is in no file."""
        body = b"b" * 500_000
        wire = self.world.wire().send(request_bytes("POST", "/pages/read?q=1&q=2", {"X-A": "a"}, body))
        self.assertEqual(wire.answer().body, b"A" + body)
        self.assertEqual(self.pages.seen, [(None, {b"q": [b"1", b"2"]})])

    def test_resource(self) -> None:
        """A resource of ``twisted.web`` answers as it does elsewhere."""
        answer = self.get("/pages/file")
        self.assertEqual((len(answer.body), answer.headers["content-type"]), (100_000, "text/plain; charset=ascii"))

    def test_producers(self) -> None:
        """Both kinds of producers write all they have."""
        for kind in ("push", "pull"):
            self.assertEqual(self.get(f"/pages/producer/{kind}").body, b"43210", kind)

    def test_later(self) -> None:
        """A later answer is in its turn among pipelined requests."""
        wire = self.world.wire().send(request_bytes("GET", "/pages/later") + request_bytes("GET", "/health"))
        self.assertEqual(wire.raw(), b"")
        self.pages.waiting.callback(b"late")
        self.assertEqual([answer.body for answer in wire.answers()], [b"late", b"ok"])

    def test_client_that_has_gone(self) -> None:
        """A page whose client disconnects is cancelled, as Klein does, and that is not an error."""
        wire = self.world.wire().send(request_bytes("GET", "/pages/later"))
        wire.drop()
        self.assertEqual((len(self.pages.seen), self.world.site.in_flight), (1, 0))
        self.assertEqual(self.flushLoggedErrors(CancelledError), [])

    def test_broken(self) -> None:
        """A page that raises is 500, logged, and its words stay in the log."""
        wire = self.world.wire().send(request_bytes("GET", "/pages/broken"))
        answer = wire.answer()
        self.assertEqual((answer.status, b"inner secret" in answer.body), (500, False))
        self.assertGreaterEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assert_kept(wire)

    def test_counted(self) -> None:
        """Its answers are counted with their status."""
        self.get("/pages/bytes")
        self.assertEqual(self.world.metrics.endpoints()["/pages"].requests, {("GET", 203): 1})
