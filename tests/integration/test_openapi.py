"""The admin API keeps to its own OpenAPI document: requests and checks of the answers are made from it."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from typing import Any

from harn.testing.manifests import trigger_text
from harn.testing.server import API_KEY, ServerProcess
from tests.integration.case import ServerCase

EXAMPLES = 3
"""Requests for each operation."""


EVENT_ID = "trigger_evt_01890a5d-ac96-774b-bcce-b302099a8057"
"""In examples: that of a delivery that is kept."""
EXAMPLE = (
    trigger_text("gh", extra="circuit = { failures = 5 }")
    + """
[[triggers.alerts]]
on = "dead_letter"
to = "webhook"
address = "http://127.0.0.1:9/"

[[triggers]]
id = "numbers"
kind = "poll"
provider = "poll"
every = "1h"
poll = "handlers:on_event"
handler = "handlers:on_event"
"""
)
NEEDS_MORE = frozenset(
    (
        *("drains.cancel", "drains.move", "deliveries.cancel", "deliveries.discard"),
        *("jobs.pause", "jobs.resume", "jobs.cancel"),
    )
)
"""Operations whose example is refused, as documented, unless something runs, drains or is dead at that moment."""


class OpenApiTests(ServerCase):
    # In CI they fail without it.
    skip = None if "CI" in os.environ or find_spec("schemathesis") else "needs schemathesis: pip install 'harn[test]'"

    def test_examples_are_true(self) -> None:
        """The example of each operation succeeds on a server to which it applies, with an answer that conforms."""
        import schemathesis
        from schemathesis.checks import not_a_server_error
        from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

        self.write_manifest(EXAMPLE)
        server = self.serve()
        event_id = self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_handled("d1")
        document = server.admin("GET", "/admin/openapi.json").json()
        text = json.dumps(document).replace(EVENT_ID, event_id).replace("/var/backups", str(self.directory))
        found: Any = schemathesis.openapi.from_dict(json.loads(text)).get_all_operations()
        answered = {}
        for operation in (each.ok() for each in found):
            raw = operation.definition.raw
            name = raw["operationId"]
            self.prepare(server, name)
            stands: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
            for each in raw["parameters"]:
                if "example" in each:
                    value = each["example"]
                    stands[each["in"]][each["name"]] = json.dumps(value) if isinstance(value, bool) else value
            body = raw.get("requestBody", {}).get("content", {}).get("application/json", {})
            given = {} if operation.method == "get" else {"body": body.get("example", {})}
            if given:
                given["media_type"] = "application/json"
            case = operation.Case(path_parameters=stands["path"], query=stands["query"], **given)
            response = case.call(base_url=server.url, headers={"Authorization": f"Bearer {API_KEY}"})
            case.validate_response(
                response, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
            )
            answered[name] = response.status_code
        wrong = {name: status for name, status in answered.items() if status != 200 and name not in NEEDS_MORE}
        self.assertEqual(wrong, {})
        self.assertLessEqual({answered[name] for name in NEEDS_MORE}, {200, 404, 409})

    def prepare(self, server: ServerProcess, name: str) -> None:
        """Make the state of the server that an example is about."""
        if name == "confirm":
            server.admin("POST", "/admin/reload?force=true&confirm_within=1h")
        elif name in ("ramps.finish", "ramps.abort"):
            self.ramped = getattr(self, "ramped", 0) + 1
            self.write_manifest(EXAMPLE.replace("circuit =", f"retry.max = {self.ramped}\ncircuit ="))
            self.assertEqual(server.admin("POST", "/admin/reload?ramp=10%25").status, 200)

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
