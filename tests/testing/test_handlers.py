"""Events out of fixtures, and handlers called in a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.handlers import Context, Reject, SecretMissing, TriggerEvent
from harn.model.event import FORMAT
from harn.testing.handlers import LoggedRecord, load_fixture, run_handler

FIXTURE: dict[str, Any] = {
    "format": FORMAT,
    "trigger_id": "gh",
    "envelope": {
        "id": "trigger_evt_1",
        "provider": "github",
        "kind": "issues.opened",
        "received_at": "2027-01-15T08:00:00.000Z",
        "dedupe_key": "d-1",
        "trace_id": "trace_1",
        "headers": {"x-github-event": "issues"},
        "signature_status": {"state": "verified"},
        "payload": {"event": "issues"},
        "lifted": {"action": ["action"]},
        "body_format": "json",
    },
    "body": '{"action": "opened", "issue": {"title": "no"}}',
}


class HandlersTests(SynchronousTestCase):
    def load(self, **changes: Any) -> TriggerEvent:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**FIXTURE, **changes}, file)
        return load_fixture(path)

    def test_event(self) -> None:
        """A fixture gives the event that a handler got: its fields, what is lifted out of the body, and the bytes."""
        event = self.load()
        self.assertEqual(
            (event.kind, event.dedupe_key, event.headers), ("issues.opened", "d-1", {"x-github-event": "issues"})
        )
        self.assertEqual((event.provider_payload["action"], event.provider_payload["event"]), ("opened", "issues"))
        self.assertEqual(event.raw_body, FIXTURE["body"].encode())
        binary = {key: value for key, value in FIXTURE.items() if key != "body"}
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**binary, "body_base64": "AP8="}, file)
        self.assertEqual(load_fixture(path).raw_body, b"\x00\xff")

    def test_documented_example(self) -> None:
        """The example of the manual runs as it stands there."""
        page = Path(harn.__file__).parents[1] / "docs/reference/handlers.md"
        section = page.read_text("utf-8").split("## Fixtures", 1)[1]
        code = section.split("```python\n", 1)[1].split("```", 1)[0]
        directory = Path(self.mktemp())
        directory.mkdir()
        body = '{"action": "opened", "issue": {"title": "It does not work"}}'
        (directory / "issue.json").write_text(json.dumps({**FIXTURE, "body": body}))
        (directory / "test_example.py").write_text(code)
        (directory / "handlers.py").write_text(
            "async def on_issue(event, context):\n"
            "    assert await context.secret('github/token') == 'for tests'\n"
            "    return {'title': event.provider_payload['raw']['issue']['title']}\n"
        )
        run = [sys.executable, "-m", "unittest", "test_example"]
        done = subprocess.run(run, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Ran 1 test", done.stderr)

    def test_wrong_files(self) -> None:
        """What is not a fixture is refused, with the place of the error."""
        for changes, why in (
            ({"format": "other"}, "format"),
            ({"envelope": {"id": 1}}, r"\$.envelope"),
            ({"body_base64": "AP8="}, "got both"),
            ({"extra": 1}, "extra"),
        ):
            with self.assertRaisesRegex(ValueError, f"not a fixture: .*{why}"):
                self.load(**changes)

    def test_calls(self) -> None:
        """Handlers of every shape are called; what they raise is raised, and what they log is collected."""

        async def both(event: TriggerEvent, context: Context) -> dict[str, Any]:
            context.log.info("seen", kind=event.kind)
            return {"token": await context.secret("github/token"), "attempt": context.attempt}

        def alone(event: TriggerEvent) -> str:
            return event.kind

        def refuses(event: TriggerEvent, context: Context) -> None:
            raise Reject(context.secret_sync("github/token"))

        logged: list[LoggedRecord] = []
        secrets = {"github/token": "t"}
        found = run_handler(both, self.load(), attempt=2, secrets=secrets, logged=logged)
        self.assertEqual(found, {"token": "t", "attempt": 2})
        self.assertEqual(logged, [LoggedRecord("info", "seen", {"kind": "issues.opened"})])
        self.assertEqual(run_handler(alone, self.load()), "issues.opened")
        with self.assertRaisesRegex(Reject, "^t$"):
            run_handler(refuses, self.load(), secrets=secrets)
        with self.assertRaises(SecretMissing):
            run_handler(both, self.load())
        with self.assertRaises(TypeError):
            run_handler(lambda event: object(), self.load())
