"""MCP tools and resources as they are made from operations, and what they send; no SDK is needed."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.auth.credentials import Credentials
from harn.cli.client import AdminClient, OperationRefused
from harn.cli.mcp.resources import JSON, RESOURCES, TOML, ResourceUnknown, read_resource
from harn.cli.mcp.tools import call_tool, tool_of, tools_of
from harn.cli.operations import OPERATIONS
from harn.deliveries.change_operations import replay_many
from harn.deliveries.operations import show_delivery
from harn.errors import PayloadInvalid
from harn.reload.operations import plan, reload
from tests.cli.server import StubServer

TOOLS = tools_of(OPERATIONS)


class MappingTests(SynchronousTestCase):
    """`tool_of` and `tools_of`."""

    def test_every_operation(self) -> None:
        """Each operation but the description of the API is a tool whose name every client accepts."""
        self.assertEqual(
            {each.operation.name for each in TOOLS.values()}, {each.name for each in OPERATIONS} - {"api.show"}
        )
        for name, tool in TOOLS.items():
            self.assertRegex(name, r"\A[a-zA-Z0-9_-]{1,64}\Z")
            self.assertEqual((tool.name, tool.title), (name, tool.operation.name))
            self.assertIn(tool.operation.summary, tool.description)
            self.assertIn(f"role {tool.operation.role.value}", tool.description)

    def test_read_only(self) -> None:
        """A GET and what is not audited, as a plan, only read; with ``read_only`` nothing else is offered."""
        changing = {name for name, tool in TOOLS.items() if not tool.is_read_only}
        self.assertLessEqual({"reload", "rollback", "replay", "fire", "pause", "drains_cancel", "backup"}, changing)
        self.assertEqual(changing & {"plan", "inspect", "deliveries_list", "dead_letters_list"}, set())
        self.assertEqual(TOOLS.keys() - tools_of(OPERATIONS, read_only=True).keys(), changing)

    def test_schema(self) -> None:
        """Parameters of path, query, header and body stand in one object; a header's by the name of its attribute."""
        schema = tool_of(reload).schema
        fields = schema["properties"]
        self.assertEqual((schema["type"], schema["required"], schema["additionalProperties"]), ("object", [], False))
        self.assertLessEqual({"if_match", "ramp", "dry_run", "source", "for", "min"}, fields.keys())
        self.assertIn("records", fields["source"]["description"])
        self.assertEqual(tool_of(show_delivery).schema["required"], ["event_id"])

    def test_schemas_are_whole(self) -> None:
        """A schema refers to nothing outside of itself."""
        for name, tool in TOOLS.items():
            found = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(tool.schema)))
            self.assertLessEqual(found, set(tool.schema.get("$defs", ())), name)
            self.assertEqual(json.dumps(tool.schema).count('"$ref"'), json.dumps(tool.schema).count('"#/$defs/'), name)


class StubCase(SynchronousTestCase):
    """A server with scripted answers."""

    def answering(self, *answers: tuple[int, Any]) -> AdminClient:
        """Start it; return a client of it."""
        self.stub = StubServer(*answers)
        self.addCleanup(self.stub.close)
        return AdminClient(url=self.stub.url, credentials=Credentials(keys=(b"key",)))


class CallTests(StubCase):
    """`call_tool`."""

    def test_request(self) -> None:
        """Arguments go where the operation has them, with the key; the answer is the document."""
        client = self.answering((200, {"status": "ok"}))
        arguments = {"if_match": '"3-x"', "ramp": "10%", "dry_run": True, "source": "agent", "force": None}
        answer = call_tool(client, TOOLS["reload"], arguments)
        self.assertEqual((answer.document, answer.text, answer.is_error), ({"status": "ok"}, '{"status":"ok"}', False))
        [seen] = self.stub.seen
        self.assertEqual((seen.method, seen.target), ("POST", "/admin/reload?ramp=10%25&dry_run=true"))
        self.assertEqual((seen.headers["if-match"], seen.headers["authorization"]), ('"3-x"', "Bearer key"))
        self.assertEqual(seen.json()["source"], "agent")

    def test_number_as_text(self) -> None:
        """A number for the path or the query may be a text, as models write it."""
        client = self.answering((200, {}))
        call_tool(client, TOOLS["deliveries_list"], {"limit": "7"})
        self.assertEqual(self.stub.seen[0].target, "/admin/deliveries?limit=7")

    def test_refused(self) -> None:
        """A problem document, and a failed reload with its problems, are the text of an error."""
        problem = {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "your role must be operate"}
        report = {"status": "error", "problems": [{"file": "harn.toml", "line": 7, "message": "handler: is missing"}]}
        client = self.answering((403, problem), (422, report), (502, b"bad gateway"))
        for expected in (problem, report):
            answer = call_tool(client, TOOLS["reload"], {})
            self.assertEqual((json.loads(answer.text), answer.document, answer.is_error), (expected, expected, True))
        answer = call_tool(client, TOOLS["reload"], {})
        self.assertEqual((answer.text, answer.is_error), ("the server answered 502: bad gateway", True))

    def test_wrong_arguments(self) -> None:
        """A wrong, missing or unknown argument is an error that says what it must be; nothing is sent."""
        client = self.answering()
        for operation, arguments, said in (
            (show_delivery, {}, "event_id: must be a text that is not empty, got nothing"),
            (reload, {"ramp": "none"}, "ramp: must be"),
            (plan, {"minimum": 3}, "unknown argument: must be one of source, force, if_match"),
            (replay_many, {"rate_limit": "fast"}, "rate_limit: must be"),
        ):
            answer = call_tool(client, tool_of(operation), arguments)
            self.assertTrue(answer.is_error)
            self.assertIn(said, answer.text)
        self.assertEqual(self.stub.seen, [])

    def test_no_server(self) -> None:
        """Where no server answers, the text says so."""
        client = self.answering()
        self.stub.close()
        answer = call_tool(client, TOOLS["inspect"], {})
        self.assertTrue(answer.is_error)
        self.assertIn(f"no server answers at {client.url}", answer.text)


class ResourceTests(StubCase):
    """`read_resource`."""

    def test_unknown(self) -> None:
        """Another URI is refused, with those that there are."""
        client = self.answering()
        for uri in (
            "harn://",
            "harn://manifest/1",
            "harn://secrets",
            "https://manifest",
            "manifest",
            "harn://triggers/gh",
        ):
            error = self.assertRaises(ResourceUnknown, read_resource, client, uri)
            for each in RESOURCES:
                self.assertIn(each.uri, str(error))

    def test_wrong_variable(self) -> None:
        """The rest of a URI is checked as a parameter, and sent as one."""
        client = self.answering((404, {"detail": "no delivery a/b"}))
        error = self.assertRaises(PayloadInvalid, read_resource, client, "harn://generations/first")
        self.assertIn("generation: must be an integer of at least 1, got 'first'", str(error))
        refused = self.assertRaises(OperationRefused, read_resource, client, "harn://deliveries/a%2Fb")
        self.assertIn("no delivery a/b", str(refused))
        self.assertEqual([each.target for each in self.stub.seen], ["/admin/deliveries/a%2Fb"])

    def test_lists(self) -> None:
        """A list is the document of its operation."""
        client = self.answering((200, {"generations": []}))
        content = read_resource(client, "harn://generations")
        self.assertEqual((json.loads(content.text), content.mime_type), ({"generations": []}, JSON))
        self.assertEqual(self.stub.seen[0].target, "/admin/generations")
        self.assertEqual({each.mime_type for each in RESOURCES if each.name != "manifest"}, {JSON})
        self.assertEqual([each.mime_type for each in RESOURCES if each.name == "manifest"], [TOML])
