"""Operations over HTTP: how their requests are read, checked and written; the OpenAPI document of the admin API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec import field as struct_field
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import PayloadInvalid
from harn.operations.http import Arguments, OperationRequest, describe_api, read_parameters, show_api, write_request
from harn.operations.model import Caller, Get, Post, Result, Role, operation
from harn.operations.parameters import (
    IN_QUERY,
    SECRET,
    Duration,
    FailureShare,
    In,
    Parameters,
    PartialShare,
    Period,
    in_header,
)


class Move(Parameters, frozen=True, kw_only=True):
    """All kinds of parameters, in all places."""

    shelf: Annotated[str, Meta(description="Which shelf.")]
    book: Annotated[str, Meta(min_length=1)]
    count: Annotated[int, Meta(ge=1, le=1000)] = 5
    first: Annotated[int, Meta(ge=0)] | None = struct_field(name="from", default=None)
    age: Duration | None = None
    within: Annotated[Period | None, IN_QUERY] = None
    ramp: Annotated[PartialShare | None, IN_QUERY] = None
    limit: Annotated[FailureShare | None, IN_QUERY] = None
    dry_run: Annotated[bool, IN_QUERY] = False
    payload: Annotated[Any, SECRET] = None
    if_match: Annotated[str | None, in_header("If-Match")] = None

    def __post_init__(self) -> None:
        """Refuse a limit without a time."""
        if self.limit is not None and self.within is None:
            raise ValueError("limit: must come with within, got it alone")


class Moved(Result, frozen=True, kw_only=True):
    """A result."""

    moved: int


@operation(
    "books.move",
    role=Role.OPERATE,
    route=Post("/shelves/{shelf}/move"),
    also={409: "The book is lent."},
    example={"shelf": "a", "book": "b", "dry_run": True},
)
async def move(shelves: Any, caller: Caller, wanted: Move) -> Moved:
    """
    Move books.

    More about it.

    :raises RouteUnknown, DeliveryUnknown: there is no such shelf,
        or no such book.
    :raises BackupFailed: it falls
    """
    return Moved(moved=1)


def read(path: str = "a", query: dict[str, str] | None = None, body: bytes = b'{"book":"b"}', **headers: str) -> Move:
    """Read a request."""
    return read_parameters(move, Arguments(path={"shelf": path}, query=query or {}, headers=headers, body=body))


class Look(Parameters, frozen=True, kw_only=True):
    """The parameters of an operation that reads."""

    limit: Annotated[int, Meta(ge=0)] = 3


@operation("books.look", role=Role.READ, route=Get("/books"))
async def look(shelves: Any, caller: Caller, wanted: Look) -> Moved:
    """Look at books."""
    return Moved(moved=0)


class DeclarationTests(SynchronousTestCase):
    """What is read from a declaration."""

    def test_summary_and_types(self) -> None:
        """Summary, parameters and result come from the function; its service's type need not exist."""
        self.assertEqual((move.summary, move.parameters, move.result), ("Move books.", Move, Moved))

    def test_places(self) -> None:
        """What the path names stands in it, what is marked where it is marked, the rest of a POST in the body."""
        places = {each.key: each.place for each in move.fields}
        self.assertEqual((places["shelf"], places["book"], places["from"]), (In.PATH, In.BODY, In.BODY))
        self.assertEqual((places["dry_run"], places["If-Match"]), (In.QUERY, In.HEADER))

    def test_get_has_a_query(self) -> None:
        """What a GET takes stands in its query."""
        self.assertEqual([each.place for each in look.fields], [In.QUERY])

    def test_path_without_parameter(self) -> None:
        """A path that names what there is not is an error of the declaration."""
        with self.assertRaisesRegex(TypeError, "lacks room"):
            operation("books.move", role=Role.OPERATE, route=Post("/rooms/{room}"))(move.run)

    def test_roles(self) -> None:
        """A role covers itself and those below it."""
        covered = [[held.covers(needed) for needed in Role] for held in Role]
        self.assertEqual(covered, [[True, False, False], [True, True, False], [True, True, True]])


class ReadingTests(SynchronousTestCase):
    """`read_parameters`."""

    def test_all(self) -> None:
        """Each is found in its place, in the form that it has there."""
        query = {"within": "2m", "ramp": "12.5%", "limit": "20", "dry_run": "yes"}
        body = b'{"book":"b","count":7,"from":0,"age":"0s","payload":{"a":[1]},"request_id":"r"}'
        self.assertEqual(
            read("s", query, body, **{"if-match": '"6-x"'}),
            Move(
                shelf="s",
                book="b",
                count=7,
                first=0,
                age=Duration.parse("0s"),
                within=Period.parse("2m"),
                ramp=PartialShare.parse("12.5%"),
                limit=FailureShare.parse("20"),
                dry_run=True,
                payload={"a": [1]},
                if_match='"6-x"',
            ),
        )

    def test_values(self) -> None:
        """Durations are seconds, shares are from 0 to 1; a flag may stand alone."""
        found = read(query={"within": "2m", "ramp": "12.5%", "dry_run": ""})
        self.assertEqual((found.within, found.ramp, found.dry_run), (120.0, 0.125, True))

    def test_null_is_nothing(self) -> None:
        """A member that is null counts as left out."""
        self.assertEqual(read(body=b'{"book":"b","count":null,"from":null}').count, 5)

    def test_refused(self) -> None:
        """Each wrong argument is refused with a message of the form "must be ..., got ..."."""
        for query, body, said in (
            ({}, b"", "book: must be a text that is not empty, got nothing"),
            ({}, b'{"book":""}', "book: must be a text that is not empty, got ''"),
            ({}, b'{"book":["b"]}', 'book: must be a text that is not empty, got ["b"]'),
            ({}, b'{"book":"b","count":0}', "count: must be an integer from 1 to 1000, got 0"),
            ({}, b'{"book":"b","count":true}', "count: must be an integer from 1 to 1000, got true"),
            ({}, b'{"book":"b","count":"5"}', "count: must be an integer from 1 to 1000, got '5'"),
            ({}, b'{"book":"b","count":5.5}', "count: must be an integer from 1 to 1000, got 5.5"),
            ({}, b'{"book":"b","from":9223372036854775808}', "from: must be an integer of at least 0, got 92233"),
            ({}, b'{"book":"b","age":5}', 'age: must be a duration such as "30s", got 5'),
            ({}, b'{"book":"b","age":"5"}', "age: must be a duration, got '5'"),
            ({"within": "0s"}, b'{"book":"b"}', "within: must be greater than 0, got '0s'"),
            ({"within": ""}, b'{"book":"b"}', "within: must be a duration, got ''; write a number and ms, s, m, h"),
            ({"ramp": "100%"}, b'{"book":"b"}', "ramp: must be greater than 0% and less than 100%, got '100%'"),
            ({"ramp": "0.1"}, b'{"book":"b"}', "ramp: '0.1' could be 0.1 % or 10 %"),
            ({"limit": "100"}, b'{"book":"b"}', "limit: must be less than 100%, got '100'"),
            ({"limit": "5"}, b'{"book":"b"}', "limit: must come with within, got it alone"),
            ({"dry_run": "perhaps"}, b'{"book":"b"}', "dry_run: must be true or false, got 'perhaps'"),
            ({"count": "5"}, b'{"book":"b"}', "unknown option of the query: must be one of within, ramp, limit, dry_"),
            ({}, b'{"book":"b","dry_run":true}', "unknown member of the body: must be one of book, count, from, age"),
            ({}, b"{", "the body: must be a JSON object or empty, got something that is not JSON"),
            ({}, b"\xff", "the body: must be a JSON object or empty, got something that is not JSON"),
            ({}, b"[]", "the body: must be a JSON object or empty, got another JSON value"),
        ):
            error = self.assertRaises(PayloadInvalid, read, query=query, body=body)
            self.assertTrue(str(error).startswith(said), str(error))

    def test_numbers_in_texts(self) -> None:
        """In a path or query a number is digits, and nothing else that Python reads as one."""
        self.assertEqual(read_parameters(look, Arguments(query={"limit": "12"})), Look(limit=12))
        with self.assertRaisesRegex(PayloadInvalid, "^limit: must be an integer of at least 0, got ''$"):
            read_parameters(look, Arguments(query={"limit": ""}))
        for text in ("-1", "+1", "1.0", "1e3", " 1", "1_000", "\u0661", "9" * 30):
            self.assertRaises(PayloadInvalid, read_parameters, look, Arguments(query={"limit": text}))


class WritingTests(SynchronousTestCase):
    """`write_request`."""

    def test_what_is_left_out(self) -> None:
        """A request holds what must be given, and what is not the default."""
        self.assertEqual(
            write_request(move, Move(shelf="a b/c", book="x")),
            OperationRequest(method="POST", target="/admin/shelves/a%20b%2Fc/move", headers={}, body={"book": "x"}),
        )

    def test_read_back(self) -> None:
        """What a client writes the server reads as it was meant."""
        query = {"within": "90s", "ramp": "12.5%", "dry_run": "1"}
        wanted = read("s", query, b'{"book":"b","count":7,"age":"0s","payload":{"a":[1]}}', **{"if-match": '"6-x"'})
        written = write_request(move, wanted)
        self.assertEqual(written.target, "/admin/shelves/s/move?within=90s&ramp=12.5%25&dry_run=true")
        self.assertEqual(written.headers, {"If-Match": '"6-x"'})
        self.assertEqual(written.body, {"book": "b", "count": 7, "age": "0s", "payload": {"a": [1]}})


def references(value: Any) -> Iterator[str]:
    """Yield every reference in a document."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


class DocumentTests(SynchronousTestCase):
    """`describe_api`."""

    def setUp(self) -> None:
        self.document = msgspec.json.decode(msgspec.json.encode(describe_api((move, look, show_api))))

    def test_paths(self) -> None:
        """Each operation is under its path and method, with its name, role and whether it is audited."""
        self.assertEqual(
            {(path, method) for path, methods in self.document["paths"].items() for method in methods},
            {("/admin/shelves/{shelf}/move", "post"), ("/admin/books", "get"), ("/admin/openapi.json", "get")},
        )
        entry = self.document["paths"]["/admin/shelves/{shelf}/move"]["post"]
        names = ("operationId", "summary", "x-role", "x-audited", "tags")
        self.assertEqual([entry[name] for name in names], ["books.move", "Move books.", "operate", False, ["books"]])

    def test_parameters(self) -> None:
        """Each parameter stands in its place, with its schema; those of the body are one object."""
        entry = self.document["paths"]["/admin/shelves/{shelf}/move"]["post"]
        places = {each["name"]: each["in"] for each in entry["parameters"]}
        self.assertEqual((places["shelf"], places["dry_run"], places["If-Match"]), ("path", "query", "header"))
        body = entry["requestBody"]["content"]["application/json"]["schema"]
        self.assertEqual(
            (body["required"], set(body["properties"])), (["book"], {"book", "count", "from", "age", "payload"})
        )
        self.assertEqual(body["properties"]["count"], {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5})
        [limit] = self.document["paths"]["/admin/books"]["get"]["parameters"]
        self.assertEqual((limit["required"], limit["schema"]["minimum"]), (False, 0))

    def test_nothing_is_left_out(self) -> None:
        """Outside of a body a value that may be left out is never null: a query could not tell it from a text."""
        entry = self.document["paths"]["/admin/shelves/{shelf}/move"]["post"]
        schemas = {each["name"]: each["schema"] for each in entry["parameters"]}
        self.assertEqual(schemas["If-Match"], {"type": "string"})
        self.assertEqual(set(schemas["within"]), {"type", "pattern"})
        self.assertNotIn("null", json.dumps(schemas))

    def test_statuses(self) -> None:
        """Each answer has its status; a result that comes with another than 200 is declared with its operation."""
        answers = self.document["paths"]["/admin/shelves/{shelf}/move"]["post"]["responses"]
        self.assertEqual(" ".join(sorted(answers)), "200 400 401 403 404 408 409 412 413 414 431 500 503")
        self.assertEqual(
            [answers[status]["description"] for status in ("404", "500")],
            ["There is no such shelf, or no such book.", "It falls."],
        )
        self.assertIn("not `operate` or `admin`", answers["403"]["description"])
        self.assertEqual(set(answers["409"]["content"]), {"application/json", "application/problem+json"})
        self.assertEqual(set(answers["404"]["content"]), {"application/problem+json"})
        [look] = self.document["paths"]["/admin/books"].values()
        self.assertEqual(set(look["responses"]), {"200", "400", "401", "403", "414", "431", "503"})
        self.assertNotIn("role", look["responses"]["403"]["description"])

    def test_examples(self) -> None:
        """What an example gives stands with each parameter of its request, and with its body."""
        entry = self.document["paths"]["/admin/shelves/{shelf}/move"]["post"]
        found = {each["name"]: each["example"] for each in entry["parameters"] if "example" in each}
        self.assertEqual(found, {"shelf": "a", "dry_run": True})
        self.assertEqual(entry["requestBody"]["content"]["application/json"]["example"], {"book": "b"})

    def test_references(self) -> None:
        """Whatever is referred to is there: results, and the problem document."""
        schemas = self.document["components"]["schemas"]
        found = set(references(self.document))
        self.assertEqual(found, {f"#/components/schemas/{name}" for name in schemas})
        self.assertIn("#/components/schemas/Problem", found)
