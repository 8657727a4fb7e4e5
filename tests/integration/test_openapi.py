"""The admin API keeps to its own OpenAPI document: requests and checks of the answers are made from it."""

from __future__ import annotations

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from harn.operations import http
from harn.testing.manifests import trigger_text
from harn.testing.server import API_KEY, ServerProcess, wait_until
from tests.integration.case import ServerCase

EXAMPLES = 3
"""Requests for each operation."""


EVENT_ID = "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057"
"""In examples: that of a delivery that is kept."""
FREE = (
    ".files",
    ".headers",
    ".changes",
    ".payload",
    ".raw",
    ".provider_payload",
    ".result",
    ".triggers",
    ".event",
)
"""Ends of the places of objects whose members differ from one answer to another."""
EXAMPLE = (
    trigger_text("gh", extra='timeout = "10m"\ncircuit = { failures = 5 }')
    + """
[[triggers.alerts]]
on = "dead_letter"
to = "webhook"
address = "http://127.0.0.1:9/"

[[triggers]]
id = "bad"
kind = "webhook"
provider = "github"
match = { events = [] }
handler = "handlers:failing"
secrets = { signing_secret = "github/webhook-secret" }
retry = { max = 1 }

[[triggers]]
id = "numbers"
kind = "poll"
provider = "poll"
every = "1h"
poll = "handlers:on_event"
handler = "handlers:on_event"
"""
)
FAILING = """
def failing(event, context):
    raise ValueError("no such repository")
"""


class OpenApiTests(ServerCase):
    # In CI they fail without it.
    skip = None if "CI" in os.environ or find_spec("schemathesis") else "needs schemathesis: pip install 'harn[test]'"

    def test_examples_are_true(self) -> None:
        """The example of each operation succeeds on a server to which it applies, with an answer that conforms."""
        import schemathesis
        from schemathesis.checks import not_a_server_error
        from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

        self.write_handlers(more=FAILING)
        self.write_manifest(EXAMPLE)
        server = self.serve()
        self.event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        for number in range(3):
            self.dead = self.assert_accepted(server.deliver("/triggers/bad", delivery=f"dead-{number}"), "bad")
        self.wait_state(server, self.dead, "dead")
        document = server.admin("GET", "/admin/openapi.json").json()
        text = json.dumps(document).replace(EVENT_ID, self.event_id).replace("/var/backups", str(self.directory))
        found: Any = schemathesis.openapi.from_dict(json.loads(text)).get_all_operations()
        answered = {}
        for operation in (each.ok() for each in found):
            raw = operation.definition.raw
            name = raw["operationId"]
            more = self.prepare(server, name)
            stands: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
            for each in raw["parameters"]:
                if "example" in each:
                    value = more.get(each["name"], each["example"])
                    stands[each["in"]][each["name"]] = json.dumps(value) if isinstance(value, bool) else value
            body = raw.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example", {})
            given: dict[str, Any] = {}
            if operation.method != "get":
                body = {name: more.get(name, value) for name, value in body.items()}
                given = {"body": body, "media_type": "application/json"}
            case = operation.Case(path_parameters=stands["path"], query=stands["query"], **given)
            response = case.call(base_url=server.url, headers={"Authorization": f"Bearer {API_KEY}"})
            case.validate_response(
                response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
            )
            self.assertEqual(response.status_code, 200, (name, response.content))
            answered[name] = response.json()
        self.compare(document, answered)

    def compare(self, document: Any, answered: dict[str, Any]) -> None:
        """Compare examples of answers with those of this server; with ``HARN_RECORD_ANSWERS``, write them instead."""
        kept = {name: self.shortened(answer) for name, answer in answered.items() if name != "api.show"}
        if os.environ.get("HARN_RECORD_ANSWERS"):
            text = msgspec.json.format(msgspec.json.encode(kept), indent=1).decode()
            text = text.replace(str(self.directory), "/srv/harn")
            text = re.sub(r"127\.0\.0\.1:\d{4,}", "127.0.0.1:8080", re.sub(r'"harn_[\w-]{40,}"', '"harn_..."', text))
            Path(http.__file__).with_name(http.ANSWERS).write_text(text + "\n")
            self.fail("the answers were written; look at them, and run the test without HARN_RECORD_ANSWERS")
        examples = {
            entry["operationId"]: entry["responses"]["200"]["content"]["application/json"].get("example")
            for methods in document["paths"].values()
            for entry in methods.values()
        }
        self.assertEqual(examples.pop("api.show"), None)
        wrong = {name: difference(examples[name], answer) for name, answer in kept.items()}
        self.assertEqual({name: found for name, found in wrong.items() if found}, {})

    def shortened(self, value: Any) -> Any:
        """Return an answer with three members of each list at most, as an example."""
        if isinstance(value, dict):
            return {name: self.shortened(each) for name, each in value.items()}
        return [self.shortened(each) for each in value[:3]] if isinstance(value, list) else value

    def test_examples_of_problems(self) -> None:
        """The examples of refusals are those of a server, but for the text of their details."""
        server = self.serve()
        paths = server.admin("GET", "/admin/openapi.json").json()["paths"]
        made = server.admin("POST", "/admin/keys", {"name": "reader", "role": "read"}).json()["key"]
        for status, path, answer in (
            (400, "/admin/inspect", server.admin("GET", "/admin/inspect?no=1")),
            (401, "/admin/inspect", server.request("GET", "/admin/inspect")),
            (403, "/admin/pause", server.admin("POST", "/admin/pause", {}, key=made)),
            (404, "/admin/deliveries/{event_id}", server.admin("GET", "/admin/deliveries/nowhere")),
            (404, "/admin/triggers/{trigger}/pause", server.admin("POST", "/admin/triggers/nowhere/pause", {})),
            (409, "/admin/confirm", server.admin("POST", "/admin/confirm", {})),
            (412, "/admin/reload", server.reload(headers={"If-Match": '"9-x"'})),
        ):
            method = "get" if "get" in paths[path] else "post"
            example = paths[path][method]["responses"][str(status)]["content"]["application/problem+json"]["example"]
            self.assertEqual(answer.status, status, answer)
            shown = answer.json()
            self.assertEqual(
                [shown[name] for name in ("type", "title", "status")],
                [example[name] for name in ("type", "title", "status")],
                path,
            )

    def wait_state(self, server: ServerProcess, event_id: str, state: str) -> None:
        """Wait until a delivery has a state."""
        wait_until(lambda: server.admin("GET", f"/admin/deliveries/{event_id}").json()["state"] == state, state)

    def prepare(self, server: ServerProcess, name: str) -> dict[str, Any]:
        """Make the state of the server that an example is about; return values of this server for its parameters."""
        if name == "confirm":
            server.admin("POST", "/admin/reload?force=true&confirm_within=1h")
            return {"generation": server.generation()["generation"]}
        if name in ("ramps.list", "ramps.finish", "ramps.abort"):
            self.change(server, "?ramp=10%25")
        elif name == "pauses.list":
            server.admin("POST", "/admin/triggers/bad/pause", {"for": "1h"})
        elif name == "triggers.resume":
            server.admin("POST", "/admin/triggers/bad/resume", {})
        elif name == "keys.list":
            server.admin("POST", "/admin/keys", {"name": "ana", "role": "read"})
        elif name in ("drains.list", "drains.cancel", "drains.move"):
            return {"binding": self.drain(server)}
        elif name == "deliveries.discard":
            return {"event_id": self.dead}
        elif name == "deliveries.cancel":
            server.admin("POST", "/admin/triggers/gh/pause", {})
            return {"event_id": self.assert_accepted(server.deliver("/triggers/gh", delivery="to-cancel"))}
        elif name == "circuits.close":
            server.admin("POST", "/admin/triggers/gh/resume", {})
        elif name == "jobs.show":
            asked = {"state": "dead", "trigger": "bad", "rate_limit": "1/h"}
            self.job = server.admin("POST", "/admin/replay", asked).json()["job"]
        return {"job": self.job} if name.startswith("jobs.") and name != "jobs.list" else {}

    def change(self, server: ServerProcess, query: str, handler: str = "on_event") -> None:
        """Change the trigger ``gh``, and reload."""
        self.changes = getattr(self, "changes", 0) + 1
        text = EXAMPLE.replace("handlers:on_event", f"handlers:{handler}", 1)
        self.write_manifest(text.replace("circuit =", f"retry.max = {self.changes}\ncircuit =", 1))
        answer = server.admin("POST", f"/admin/reload{query}")
        self.assertEqual(answer.status, 200, answer)

    def drain(self, server: ServerProcess) -> str:
        """Return the key of a version that drains, and whose delivery does not end."""
        self.change(server, "", handler="held")
        key = f"held-{self.changes}"
        binding: str = server.deliver("/triggers/gh", delivery=key).json()["binding"]
        wait_until(lambda: any(each.get("began") == key for each in self.seen()), "the handler's beginning")
        self.change(server, "")
        return binding

    def test_answers_conform(self) -> None:
        """No operation answers a request that its schema allows with 5xx, or otherwise than the document says."""
        import schemathesis

        server = self.serve()
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        known = {"trigger": "gh", "event_id": event_id, "generation": 1, "topic": "trigger.outbox"}
        document = server.admin("GET", "/admin/openapi.json").json()
        self.wrong: list[str] = []
        self.answered: dict[str, set[int]] = {}
        for path, methods in document["paths"].items():
            for method, entry in methods.items():
                self.assertNotIn("default", entry["responses"], f"{method} {path}")
        found: Any = schemathesis.openapi.from_dict(document).get_all_operations()
        declared = [each.ok() for each in found]
        for operation in declared:
            in_path = {each.name for each in operation.path_parameters}
            fixed = {name: known[name] for name in in_path if name in known}
            for path in [{}, fixed] if fixed else [{}]:
                self.check(server, operation, path)
        self.write("harn.toml", "nonsense [")
        for operation in declared:
            if operation.path == "/admin/plan":
                self.check(server, operation, {})
        self.assertEqual(self.wrong, [], "\n\n".join(self.wrong))
        succeeded = {label for label, statuses in self.answered.items() if 200 in statuses}
        self.assertIn(422, self.answered["POST /admin/plan"])
        self.assertGreater(len(succeeded), len(declared) / 2, self.answered)

    def check(self, server: ServerProcess, operation: Any, path: dict[str, Any]) -> None:
        """Send requests for one operation, and note the statuses, and what is wrong with the answers."""
        from hypothesis import HealthCheck, Phase, given, settings
        from schemathesis.checks import not_a_server_error
        from schemathesis.core.failures import Failure, FailureGroup
        from schemathesis.specs.openapi.checks import (
            content_type_conformance,
            response_schema_conformance,
            status_code_conformance,
        )

        checks = [
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ]

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(path_parameters=path or None))
        def ask(case: Any) -> None:
            if case.path == "/admin/backup":  # an invented path could be one of this machine
                case.body = {"file": str(self.directory / "harn.backup"), "force": True}
            response = case.call(base_url=server.url, headers={"Authorization": f"Bearer {API_KEY}"})
            self.answered.setdefault(operation.label, set()).add(response.status_code)
            try:
                case.validate_response(response, checks=checks)
            except FailureGroup as group:
                self.wrong.extend(f"{operation.label}: {each}" for each in group.exceptions)
            except Failure as failure:
                self.wrong.append(f"{operation.label}: {failure}")

        ask()


def difference(example: Any, answer: Any, at: str = "") -> str:
    """Return where an example has other members than an answer, or another kind of value; empty for nowhere."""
    if isinstance(example, dict) and isinstance(answer, dict):
        if example.keys() != answer.keys() and not at.endswith(FREE):
            return f"{at}: members {sorted(example.keys() ^ answer.keys())}"
        both = [name for name in example if name in answer]
        return next(filter(None, (difference(example[name], answer[name], f"{at}.{name}") for name in both)), "")
    if isinstance(example, list) and isinstance(answer, list):
        return difference(example[0], answer[0], f"{at}[]") if example and answer else ""
    is_number = [isinstance(each, int | float) and not isinstance(each, bool) for each in (example, answer)]
    kinds = {float if number else type(each) for number, each in zip(is_number, (example, answer), strict=True)}
    return "" if len(kinds) == 1 or None in (example, answer) else f"{at}: {example!r} is not of the kind of {answer!r}"
