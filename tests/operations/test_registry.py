"""Operations added, found and run: roles, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from attrs import evolve
from msgspec import Struct, to_builtins
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import NothingPending, NotPermitted
from harn.operations.model import Caller, Get, Operation, Post, Reply, Result, Role, operation
from harn.operations.parameters import SECRET, Parameters
from harn.operations.registry import TOPIC, Audit, Operations


class Nothing(Parameters, frozen=True, kw_only=True):
    """No parameters."""


class Lend(Parameters, frozen=True, kw_only=True):
    """What to lend."""

    book: str
    days: int = 14
    dry_run: bool = False
    password: Annotated[str, SECRET] = ""


class Count(Result, frozen=True, kw_only=True):
    """A result."""

    count: int


class Shelf:
    """A service; ``error`` is what it fails with."""

    def __init__(self) -> None:
        self.lent: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.status = 200


@operation("books.count", role=Role.READ, route=Get("/books"))
async def count(shelf: Shelf, caller: Caller, wanted: Nothing) -> Count:
    """Count the books."""
    return Count(count=len(shelf.lent))


@operation("books.lend", role=Role.OPERATE, route=Post("/books/lend"), audit=lambda done: {"lent": done.count})
async def lend(shelf: Shelf, caller: Caller, wanted: Lend) -> Reply[Count]:
    """Record a loan."""
    if shelf.error is not None:
        raise shelf.error
    shelf.lent.append((caller.actor, wanted.book))
    return Reply(Count(count=1), status=shelf.status)


class RegistryCase(SynchronousTestCase):
    """The operations of a shelf."""

    def setUp(self) -> None:
        clock = Clock()
        clock.advance(1_700_000_000)
        self.recorded: list[tuple[str, str, Mapping[str, Any]]] = []
        self.shelf = Shelf()
        self.operations = Operations(Audit(wall=clock, records=self))
        self.operations.add(self.shelf, count, lend)

    async def note(self, topic: str, kind: str, payload: Struct) -> None:
        """Keep a record."""
        self.recorded.append((topic, kind, to_builtins(payload)))

    def run_as(self, role: Role, asked: Operation[Any, Any, Any], wanted: Parameters) -> Deferred[Any]:
        """Run an operation."""
        return Deferred.fromCoroutine(self.operations.run(asked, Caller(actor="me", role=role), wanted))


class RunningTests(RegistryCase):
    """`Operations.run`."""

    def test_each_on_its_service(self) -> None:
        """An operation gets its service, the caller and the parameters; a plain result is a reply of 200."""
        self.successResultOf(self.run_as(Role.OPERATE, lend, Lend(book="a")))
        reply = self.successResultOf(self.run_as(Role.READ, count, Nothing()))
        self.assertEqual((self.shelf.lent, reply), ([("me", "a")], Reply(Count(count=1))))

    def test_role(self) -> None:
        """A caller whose role is too low is refused, and nothing is done or recorded."""
        error = self.failureResultOf(self.run_as(Role.READ, lend, Lend(book="a")), NotPermitted).value
        self.assertEqual(str(error), "books.lend: your role must be operate, got read")
        self.assertEqual((self.shelf.lent, self.recorded), ([], []))

    def test_same_name_or_route(self) -> None:
        """Two operations share neither name nor route."""
        again = operation("books.lend", role=Role.READ, route=Get("/elsewhere"))(count.run)
        beside = operation("books.sum", role=Role.READ, route=Get("/books"))(count.run)
        for each, other in ((again, "books.lend"), (beside, "books.count")):
            error = self.assertRaises(ValueError, self.operations.add, self.shelf, each)
            self.assertIn(f"are those of {other}", str(error))
        self.assertEqual([each.name for each in self.operations], ["books.count", "books.lend"])

    def test_same_name_of_a_class(self) -> None:
        """Of two classes with one name the API's document would show one: the second is refused, with both modules."""
        other = type(Lend)("Lend", (Parameters,), {"__module__": "elsewhere"}, frozen=True, kw_only=True)

        async def run(shelf: Shelf, caller: Caller, wanted: Nothing) -> Count:
            return Count(count=0)

        declared = operation("books.borrow", role=Role.READ, route=Get("/borrowed"))(run)
        error = self.assertRaises(ValueError, self.operations.add, self.shelf, evolve(declared, parameters=other))
        self.assertIn("elsewhere.Lend must be its own", str(error))
        self.assertIn(__name__, str(error))


class AuditTests(RegistryCase):
    """The records on ``audit.operations``."""

    def record(self) -> Mapping[str, Any]:
        """Return the payload of the one record, without its id."""
        ((topic, kind, payload),) = self.recorded
        self.recorded.clear()
        self.assertEqual((topic, kind, payload["operation"]), (TOPIC, "books.lend", "books.lend"))
        self.assertRegex(payload["id"], r"\Aop_[0-9a-f-]{36}\Z")
        return {name: value for name, value in payload.items() if name not in ("id", "operation")}

    def test_done(self) -> None:
        """Who, with which role and parameters, and how much; defaults and secrets are left out."""
        self.successResultOf(self.run_as(Role.ADMIN, lend, Lend(book="a", password="hush")))
        expected = {
            "actor": "me",
            "role": "admin",
            "parameters": {"book": "a"},
            "filter": {},
            "outcome": "done",
            "counts": {"lent": 1},
        }
        self.assertEqual(self.record(), expected)

    def test_failed(self) -> None:
        """A refusal is recorded with its words, any other error by its class alone."""
        for error, said in ((NothingPending("none is there"), "none is there"), (KeyError("hush"), "KeyError")):
            self.shelf.error = error
            self.failureResultOf(self.run_as(Role.ADMIN, lend, Lend(book="a")), type(error))
            record = self.record()
            self.assertEqual((record["outcome"], record["error"], record["counts"]), ("failed", said, {}))

    def test_answer_that_is_an_error(self) -> None:
        """A result with the status of an error is recorded as failed."""
        self.shelf.status = 422
        self.successResultOf(self.run_as(Role.ADMIN, lend, Lend(book="a")))
        self.assertEqual(self.record()["outcome"], "failed")

    def test_what_changes_nothing(self) -> None:
        """Neither a dry run nor an operation that reads is recorded."""
        self.successResultOf(self.run_as(Role.ADMIN, lend, Lend(book="a", dry_run=True)))
        self.successResultOf(self.run_as(Role.ADMIN, count, Nothing()))
        self.assertEqual(self.recorded, [])
