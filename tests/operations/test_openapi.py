"""The OpenAPI document of the admin API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harn.operations.openapi import describe_api, show_api
from tests.operations.test_requests import look, move


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

    def test_references(self) -> None:
        """Whatever is referred to is there: results, and the problem document."""
        schemas = self.document["components"]["schemas"]
        found = set(references(self.document))
        self.assertEqual(found, {f"#/components/schemas/{name}" for name in schemas})
        self.assertIn("#/components/schemas/Problem", found)
