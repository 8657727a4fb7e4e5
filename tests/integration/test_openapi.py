"""The admin API keeps to its own OpenAPI document: requests and checks of the answers are made from it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from harn.testing.server import API_KEY, ServerProcess
from tests.integration.case import ServerCase

EXAMPLES = 3
"""Requests for each operation."""


class OpenApiTests(ServerCase):
    skip = None if find_spec("schemathesis") else "needs schemathesis: pip install 'harn[test]'"

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
