"""The MCP server through the SDK: its own client in process, and streamable HTTP without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.main import cli
from harn.cli.mcp import command
from harn.cli.mcp.server import McpService
from harn.cli.mcp.tools import tools_of
from harn.cli.mcp.web import KeyVerifier, make_app, security
from harn.cli.operations import OPERATIONS
from harn.cli.place import ServerTarget
from tests.cli.server import StubServer

NO_SDK = None if find_spec("mcp") else "needs the MCP SDK: pip install 'harn[mcp]'"
UNKNOWN = dict.fromkeys(("digest", "drift", "last_failed", "waiting", "probation"))
LIVE: dict[str, Any] = {"generation": 3, **UNKNOWN, "ramps": []}
REFUSAL = {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": "no such key"}


class StubCase(SynchronousTestCase):
    """A harn server with scripted answers, and the MCP server of it."""

    skip = NO_SDK

    def service(self, *answers: tuple[int, Any]) -> McpService:
        """Start the one, return the other."""
        self.stub = StubServer(*answers)
        self.addCleanup(self.stub.close)
        options: dict[str, Any] = {"config": None, "state_dir": None, "cacert": None, "insecure": False, "timeout": 5.0}
        environ = {"HARN_ORCHESTRATOR_API_KEYS": "own-key"}
        target = ServerTarget.of_options({**options, "admin_url": self.stub.url}, environ)
        return McpService(target=target, tools=tools_of(OPERATIONS))


class ServiceTests(StubCase):
    """`McpService`, in process."""

    def asked(self, service: McpService, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """Return the result of ``ask`` with the SDK's client: an answer, or an error of the protocol."""

        async def talk() -> Any:
            from mcp import MCPError
            from mcp.client import Client

            async with Client(service.server()) as client:
                try:
                    return await ask(client)
                except MCPError as error:
                    return error

        return asyncio.run(talk())

    def test_tools(self) -> None:
        """The client lists every tool, with its schema and its annotations."""
        service = self.service()
        found = {each.name: each for each in self.asked(service, lambda it: it.list_tools()).tools}
        self.assertEqual(found.keys(), service.tools.keys())
        hints = {
            name: (found[name].annotations.read_only_hint, found[name].annotations.destructive_hint)
            for name in ("inspect", "plan", "replay")
        }
        self.assertEqual(hints, {"inspect": (True, False), "plan": (True, False), "replay": (False, True)})
        self.assertEqual(found["deliveries_show"].input_schema["required"], ["event_id"])

    def test_call(self) -> None:
        """The answer is text and structure; a refusal is an error of the tool; the key is the one of every command."""
        service = self.service((200, {"alerts": []}), (401, REFUSAL))
        good, bad = (self.asked(service, lambda it: it.call_tool("alerts_list", {})) for _ in range(2))
        self.assertEqual((good.is_error, good.structured_content), (False, {"alerts": []}))
        self.assertEqual(json.loads(good.content[0].text), {"alerts": []})
        self.assertEqual((bad.is_error, json.loads(bad.content[0].text)), (True, REFUSAL))
        self.assertEqual({each.headers["authorization"] for each in self.stub.seen}, {"Bearer own-key"})

    def test_unknown(self) -> None:
        """A tool or a resource that is not there, or that the server refuses, is an error of the protocol."""
        from mcp import types

        service = self.service((401, REFUSAL))
        for ask, code in (
            (lambda it: it.call_tool("shutdown", {}), types.INVALID_PARAMS),
            (lambda it: it.read_resource("harn://secrets"), types.INVALID_PARAMS),
            (lambda it: it.read_resource("harn://manifest"), types.INTERNAL_ERROR),
        ):
            self.assertEqual(self.asked(service, ask).code, code)

    def test_resources(self) -> None:
        """The manifest is that of the live generation; templates are listed apart."""
        entry = {"generation": 3, "digest": "d", "source": "cli", "actor": "a", "adopted_at": None, "live": True}
        summary: dict[str, list[str]] = {name: [] for name in ("added", "modified", "removed", "unchanged")}
        more: dict[str, Any] = {"recalled": None, "reason": "", "summary": summary, "modules": ()}
        service = self.service((200, LIVE), (200, {**entry, **more, "manifest_digest": "m", "manifest": "# text"}))
        [content] = self.asked(service, lambda it: it.read_resource("harn://manifest")).contents
        self.assertEqual((content.text, content.mime_type), ("# text", "application/toml"))
        self.assertEqual([each.target for each in self.stub.seen], ["/admin/generation", "/admin/generations/3"])
        listed = self.asked(service, lambda it: it.list_resources()).resources
        self.assertEqual(
            [str(each.uri) for each in listed], ["harn://manifest", "harn://generations", "harn://deliveries"]
        )
        templates = self.asked(service, lambda it: it.list_resource_templates()).resource_templates
        self.assertIn("harn://deliveries/{event_id}", [each.uri_template for each in templates])


class WebTests(StubCase):
    """Streamable HTTP."""

    def posted(self, service: McpService, headers: dict[str, str], method: str = "tools/list", **params: Any) -> Any:
        """Post one request to the application; return status and headers, and the decoded body if it is JSON."""
        given = {"host": "127.0.0.1:8765", "content-type": "application/json", "accept": "application/json, */*"}
        pairs = [(name.encode(), value.encode()) for name, value in {**given, **headers}.items()]
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b""}
        scope |= {
            "raw_path": b"/mcp",
            "headers": pairs,
            "http_version": "1.1",
            "scheme": "http",
            "server": None,
            "client": None,
        }
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(message).encode()}

        async def send(part: Any) -> None:
            sent.append(part)

        async def talk() -> None:
            app = make_app(service, "127.0.0.1", ())
            async with app.router.lifespan_context(app):
                await app(scope, receive, send)

        asyncio.run(talk())
        body = b"".join(part.get("body", b"") for part in sent)
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body) if body.startswith(b"{") else body

    def test_key_is_passed_on(self) -> None:
        """The key of the request is the one that the harn server is asked with, not the one of the MCP server."""
        service = self.service((200, LIVE), (200, {"alerts": []}))
        shown = {"authorization": "Bearer theirs"}
        status, _, answer = self.posted(service, shown, "tools/call", name="alerts_list", arguments={})
        self.assertEqual((status, answer["result"]["structuredContent"]), (200, {"alerts": []}))
        self.assertEqual([each.headers["authorization"] for each in self.stub.seen], ["Bearer theirs"] * 2)

    def test_no_key(self) -> None:
        """A request without a key, or with one that the server refuses, gets 401."""
        service = self.service((401, REFUSAL))
        for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer wrong"}):
            status, answered, _ = self.posted(service, headers)
            self.assertEqual(status, 401)
            self.assertTrue(answered[b"www-authenticate"].startswith(b"Bearer"))
        self.assertEqual(len(self.stub.seen), 1)

    def test_other_host(self) -> None:
        """Another name of this machine in ``Host`` or ``Origin``, as of a page that rebinds its name, is refused."""
        service = self.service((200, LIVE), (200, LIVE), (200, LIVE))
        key = {"authorization": "Bearer theirs"}
        self.assertEqual(self.posted(service, {**key, "host": "evil.example:8765"})[0], 421)
        self.assertEqual(self.posted(service, {**key, "origin": "https://evil.example"})[0], 403)
        self.assertEqual(self.posted(service, {**key, "origin": "http://localhost:8765"})[0], 200)

    def test_allowed_names(self) -> None:
        """A name counts with any port unless it has one; IPv6 is in brackets."""
        found = security("::1", ["mcp.example", "other.example:444"])
        self.assertLessEqual({"[::1]:*", "localhost:*", "mcp.example", "mcp.example:*"}, set(found.allowed_hosts))
        self.assertIn("other.example:444", found.allowed_hosts)
        self.assertNotIn("other.example:444:*", found.allowed_hosts)
        self.assertIn("https://mcp.example", found.allowed_origins)
        self.assertNotIn("localhost:*", security("10.0.0.1", []).allowed_hosts)

    def test_server_away(self) -> None:
        """A server that does not answer refuses no key: each tool says why it cannot be asked."""
        service = self.service((503, {"detail": "starting"}))
        verifier = KeyVerifier(target=service.target)
        self.assertTrue(verifier.accepts("k"))
        self.stub.close()
        self.assertTrue(verifier.accepts("k"))
        self.assertFalse(verifier.accepts("k\u00e9"))


class CommandTests(SynchronousTestCase):
    def test_without_sdk(self) -> None:
        """Where the SDK is not installed, the command says how to install it."""
        self.patch(command, "NEEDED", ("no_such_package",))
        done = CliRunner().invoke(cli, ["mcp"], prog_name="harn")
        self.assertEqual((done.exit_code, done.stdout), (1, ""))
        self.assertIn("pip install 'harn[mcp]'", done.stderr)

    def test_usage(self) -> None:
        """An address is checked; names are for HTTP alone, and needed where every address is listened on."""
        self.patch(command, "NEEDED", ())
        for arguments, said in (
            (["--http", "here"], "HOST:PORT"),
            (["--http", "99999"], "a port from 0 to 65535"),
            (["--http", "0.0.0.0:0"], "--allowed-host NAME"),
            (["--allowed-host", "x"], "--allowed-host is for --http"),
        ):
            done = CliRunner().invoke(cli, ["mcp", *arguments], prog_name="harn")
            self.assertEqual((done.exit_code, done.stdout), (2, ""), arguments)
            self.assertIn(said, " ".join(done.stderr.split()))

    def test_port_alone(self) -> None:
        """A port alone is on loopback."""
        for text in ("8765", ":8765", "127.0.0.1:8765"):
            self.assertEqual(command.Address().convert(text, None, None), ("127.0.0.1", 8765))
