"""``harn mcp`` with the SDK's own client, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.util import find_spec
from typing import Any

from tests.integration.case import SharedServerCase, trigger_text


class McpTests(SharedServerCase):
    # In CI they fail without it.
    skip = None if "CI" in os.environ or find_spec("mcp") else "needs the MCP SDK: pip install 'harn[mcp]'"

    def test_agent(self) -> None:
        """An agent looks at the server, sees what a reload would change, reloads, and reads what was delivered."""
        server = self.serve()
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        self.wait_records(server, "trigger.outbox", 1)
        self.write_manifest(trigger_text("gh"), trigger_text("more"))
        found = asyncio.run(self.operated(event_id))
        self.assertEqual(found["read"]["event_id"], event_id)
        self.assertEqual(found["plan"]["summary"]["added"], ["more"])
        self.assertEqual((found["reload"]["status"], found["reload"]["source"]), ("ok", "agent"))
        self.assertEqual(server.generation()["source"], "agent")
        self.assertIn('id = "more"', found["manifest"])
        self.assertIn(event_id, found["listed"])
        self.assertTrue(found["broken"].is_error)
        problems = json.loads(found["broken"].content[0].text)["problems"]
        self.assertTrue(any("harn.toml" in each["file"] for each in problems), problems)
        self.assertTrue(found["unknown"].is_error)
        self.assertEqual(json.loads(found["unknown"].content[0].text)["status"], 404)
        paths = server.admin("GET", "/admin/openapi.json").json()["paths"]
        operations = {each["operationId"] for path in paths.values() for each in path.values()}
        self.assertEqual(found["tools"], operations - {"api.show"})

    async def operated(self, event_id: str) -> dict[str, Any]:
        """Call tools and read resources as an agent does; return the answers."""
        from mcp.client import Client
        from mcp.client.stdio import StdioServerParameters

        words = ["-m", "harn", "mcp", "--state-dir", "state"]
        started = StdioServerParameters(command=sys.executable, args=words, env=self.environ, cwd=self.directory)
        found: dict[str, Any] = {}
        client: Any  # contents are of several kinds; here all are text
        async with Client(started) as client:
            found["tools"] = {each.title for each in (await client.list_tools()).tools}
            found["listed"] = (await client.call_tool("deliveries_list", {"limit": 5})).content[0].text
            found["plan"] = (await client.call_tool("plan", {})).structured_content
            found["reload"] = (await client.call_tool("reload", {"source": "agent"})).structured_content
            found["manifest"] = (await client.read_resource("harn://manifest")).contents[0].text
            read = await client.read_resource(f"harn://deliveries/{event_id}")
            found["read"] = json.loads(read.contents[0].text)
            self.write_manifest(trigger_text("gh", handler="handlers:missing"))
            found["broken"] = await client.call_tool("plan", {})
            found["unknown"] = await client.call_tool("deliveries_show", {"event_id": "none"})
        return found
