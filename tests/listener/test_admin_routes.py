"""Routes of the admin API that are made from operations, through the whole tree."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta
from twisted.internet.defer import Deferred

from harn.auth.credentials import sign_request
from harn.errors import NothingPending
from harn.operations.model import Caller, Get, Post, Reply, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.testing.clients import request_bytes
from tests.listener.test_admin import AdminCase
from tests.listener.world import START


class Nothing(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class Lend(Parameters, frozen=True, kw_only=True):
    """What to lend."""

    shelf: str
    book: Annotated[str, Meta(min_length=1)]


class Answered(Result, frozen=True, kw_only=True):
    """A result."""

    said: str


class Shelf:
    """A service; ``answer`` is what it gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[Caller, Parameters]] = []
        self.answer: Any = Answered(said="done")

    async def give(self, caller: Caller, wanted: Parameters) -> Any:
        """Answer."""
        self.asked.append((caller, wanted))
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, Deferred) else self.answer


@operation("books.list", role=Role.READ, route=Get("/books"))
async def books(shelf: Shelf, caller: Caller, wanted: Nothing) -> Answered:
    """List books."""
    answered: Answered = await shelf.give(caller, wanted)
    return answered


@operation("books.lend", role=Role.OPERATE, route=Post("/books/{shelf}/lend"), audit=lambda done: {"lent": 1})
async def lend(shelf: Shelf, caller: Caller, wanted: Lend) -> Answered:
    """Record a loan."""
    answered: Answered = await shelf.give(caller, wanted)
    return answered


class RouteTests(AdminCase):
    """`Admin`, with operations of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.shelf = Shelf()
        self.world.operations.add(self.shelf, books, lend)
        self.world.mount_admin()

    def test_reaches_its_operation(self) -> None:
        """A request becomes parameters and caller, the result its answer; path parameters are decoded."""
        answer = self.ask("POST", "/admin/books/top%20left/lend", b'{"book":"b","request_id":"1"}')
        self.assertEqual((answer.status, answer.json()), (200, {"said": "done"}))
        ((caller, wanted),) = self.shelf.asked
        self.assertEqual(wanted, Lend(shelf="top left", book="b"))
        self.assertTrue(caller.actor.startswith("key:"))
        ((_, kind, payload),) = self.world.recorded
        self.assertEqual((kind, payload["parameters"]), ("books.lend", {"shelf": "top left", "book": "b"}))

    def test_status_and_tag(self) -> None:
        """A result may come with a status and an entity tag."""
        self.shelf.answer = Reply(Answered(said="no"), status=409, etag='"7-abc"')
        answer = self.ask("GET", "/admin/books")
        self.assertEqual((answer.status, answer.headers["etag"], answer.json()), (409, '"7-abc"', {"said": "no"}))

    def test_wrong_argument(self) -> None:
        """A wrong or unknown argument is a problem document, and nothing is done."""
        for target, body, said in (
            ("/admin/books/a/lend", b'{"book":7}', "book: must be a text that is not empty, got 7"),
            ("/admin/books/a/lend?book=b", b"", "unknown option of the query: must not be given, got 'book'"),
        ):
            answer = self.ask("POST", target, body)
            self.assertEqual((answer.status, answer.json()["detail"]), (400, said))
            self.assertEqual(answer.headers["content-type"], "application/problem+json")
        self.assertEqual((self.shelf.asked, self.world.recorded), ([], []))

    def test_refusal(self) -> None:
        """What an operation raises on purpose is its problem document."""
        self.shelf.answer = NothingPending("nothing is lent")
        answer = self.ask("GET", "/admin/books")
        self.assertEqual((answer.status, answer.json()["detail"]), (409, "nothing is lent"))

    def test_broken(self) -> None:
        """What it raises otherwise is 500 and logged; its words stay in the log."""
        self.shelf.answer = KeyError("inner secret")
        answer = self.ask("GET", "/admin/books")
        self.assertEqual((answer.status, b"inner secret" in answer.body), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_paths_and_methods(self) -> None:
        """A path is right or unknown; a wrong method names those that there are; HEAD goes with GET."""
        for target in ("/admin/books/", "/admin//books", "/admin/books/a/b/lend", "/admin/books/%ff/lend"):
            self.assertEqual(self.ask("POST", target).status, 404, target)
        answer = self.ask("POST", "/admin/books")
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD, OPTIONS"))
        (answer,) = self.wire("HEAD", "/admin/books").answers(heads=True)
        self.assertEqual((answer.status, answer.headers["content-length"]), (200, "15"))

    def test_strangers(self) -> None:
        """Without credentials every path and method gets the same answer, and nothing is done."""
        said = set()
        for method, target in (("GET", "/admin/books"), ("PUT", "/admin/books"), ("GET", "/admin/nowhere")):
            answer = self.world.wire().send(request_bytes(method, target)).answer()
            said.add((answer.status, answer.body, answer.headers["www-authenticate"]))
        self.assertEqual(({status for status, _, _ in said}, len(said), self.shelf.asked), ({401}, 1, []))

    def test_signature_counts_once(self) -> None:
        """A signed POST is carried out once; a signed GET may come again."""
        body = b'{"book":"b"}'
        for method, target, sent, second in (
            ("POST", "/admin/books/a/lend", body, 401),
            ("GET", "/admin/books", b"", 200),
        ):
            header = {"Authorization": sign_request(b"hmac-secret", method, target, sent, START)}
            answers = [self.world.wire().send(request_bytes(method, target, header, sent)).answer() for _ in range(2)]
            self.assertEqual([answer.status for answer in answers], [200, second])
        self.assertEqual([caller.actor for caller, _ in self.shelf.asked], ["hmac", "hmac", "hmac"])

    def test_outlives_its_client(self) -> None:
        """What was asked for continues, and is recorded, when its client goes away."""
        cancelled: list[object] = []
        waiting: Deferred[Any] = Deferred(cancelled.append)
        self.shelf.answer = waiting
        self.wire("POST", "/admin/books/a/lend", b'{"book":"b"}').drop()
        self.assertEqual((cancelled, self.world.site.in_flight), ([], 0))
        waiting.callback(Answered(said="done"))
        self.assertEqual((len(self.world.recorded), self.flushLoggedErrors()), (1, []))

    def test_metrics(self) -> None:
        """The metrics name the first segment, never what a request is about."""
        self.ask("POST", "/admin/books/a/lend", b'{"book":"b"}')
        self.assertEqual(set(self.world.metrics.endpoints()), {"/admin/books"})
