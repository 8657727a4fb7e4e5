"""``harn doctor`` as a command: on a folder that is in order, and on one where everything is broken."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.doctor.command import run_checks
from harn.cli.doctor.directory import time_syncs
from harn.cli.doctor.model import CheckStatus, Row, ok
from harn.cli.main import cli

MANIFEST = """\
[[triggers]]
id = "gh"
kind = "webhook"
provider = "github"
match = { events = [] }
handler = "handlers:on_issue"
secrets = { signing_secret = "github/webhook-secret" }
"""
SECRET = "HARN_SECRET_GITHUB_WEBHOOK_SECRET"
VALUE = "correct-horse-battery"


class DoctorTests(SynchronousTestCase):
    """The whole command."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "harn.toml").write_text(MANIFEST)
        (self.folder / "handlers.py").write_text("def on_issue(event):\n    return 1\n")
        self.state = self.folder / "state"
        self.state.mkdir(mode=0o700)

    def doctor(self, *more: str, **environ: str | None) -> Result:
        """Run the command on the folder."""
        arguments = ["doctor", "--config", str(self.folder / "harn.toml"), "--state-dir", str(self.state)]
        listen = {"HARN_ORCHESTRATOR_LISTEN": "127.0.0.1:0", SECRET: VALUE}
        return CliRunner().invoke(cli, [*arguments, *more], env={**listen, **environ})

    def rows(self, result: Result) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of ``--json`` by label."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in json.loads(result.stdout)["checks"]:
            found.setdefault(row["label"], []).append(row)
        return found

    def test_in_order(self) -> None:
        """A folder that is in order, before its first start: exit 0, each check has its row, nothing is left behind."""
        done = self.doctor("--json", "--no-network")
        rows = self.rows(done)
        self.assertEqual(done.exit_code, 0, done.output)
        for label in ("lock", "disk space", "open files", "clock", "manifest", "code", "secret providers"):
            self.assertIn(rows[label][0]["status"], ("OK", "WARN"), rows[label])
        for label, status in (
            ("state directory", "OK"),
            ("secret:env", "OK"),
            ("secret:keyring", "SKIP"),
            ("server", "SKIP"),
            ("event log", "SKIP"),
            ("listener", "OK"),
            ("TLS certificate", "SKIP"),
        ):
            self.assertEqual(rows[label][0]["status"], status, rows[label])
        self.assertIn("kind=webhook provider=github handler=local", rows["trigger:gh"][0]["detail"])
        self.assertEqual(list(self.state.iterdir()), [])
        self.assertNotIn(VALUE, done.output)

    def test_broken(self) -> None:
        """Where everything is broken, each check says so in a row with what to do, and nothing raises: exit 1."""
        (self.folder / "harn.toml").write_text('[[triggers]]\nid = ""\nkind = "webhok"\n')
        (self.state / "events.sqlite").write_bytes(b"no database" * 1000)
        (self.state / "orchestrator-state.json").write_text("{")
        self.state.chmod(0o777)
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        done = self.doctor(
            *("--json", "--cert", "nowhere.pem", "--key", "nowhere.pem"),
            HARN_ORCHESTRATOR_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}",
            HARN_SECRET_PROVIDERS="vault",
            HARN_ORCHESTRATOR_API_KEYS_FILE="/nowhere",
        )
        rows = self.rows(done)
        self.assertEqual(done.exit_code, 1, done.output)
        self.assertNotIn("Traceback", done.output)
        for label in ("event log", "manifest", "secret providers", "credentials", "listener", "TLS certificate"):
            self.assertEqual(rows[label][0]["status"], "FAIL", rows[label])
        self.assertEqual(rows["state directory"][0]["status"], "WARN")
        self.assertGreater(len(rows["manifest"]), 1)
        for row in json.loads(done.stdout)["checks"]:
            self.assertTrue(row["hint"] or row["status"] in ("OK", "SKIP"), row)
            self.assertNotIn("report this", row["hint"], row)

    def test_lines(self) -> None:
        """Without a terminal a row is a line that begins with status and label; a missing secret is a failure."""
        (self.folder / "handlers.py").write_text("def other(event):\n    return 1\n")
        done = self.doctor("--no-network", **{SECRET: None})
        self.assertEqual(done.exit_code, 1, done.output)
        self.assertRegex(done.stdout, r"(?m)^OK    manifest +.*harn\.toml: 1 trigger$")
        self.assertRegex(done.stdout, r"(?m)^FAIL  secret:github/webhook-secret  .*gh: secrets\.signing_secret")
        self.assertRegex(done.stdout, r"(?m)^FAIL  code +.*on_issue")
        self.assertRegex(done.stdout, r"(?m)^SKIP  event log")
        self.assertRegex(done.stdout.splitlines()[-1], r"^\d+ checks: \d+ OK, ")

    def test_usage(self) -> None:
        """A wrong option is wrong usage: exit 2."""
        self.assertEqual(self.doctor("--bind", "nowhere").exit_code, 2)

    def test_check_that_fails(self) -> None:
        """A check that raises is a failure that does not quote it, and those after it are made."""

        def raises() -> Iterator[Row]:
            yield from ()
            raise RuntimeError(VALUE)

        first, second = run_checks((("odd", raises()), ("even", iter([ok("even", "fine")]))))
        self.assertEqual((first.status, first.label, second.status), (CheckStatus.FAIL, "odd", CheckStatus.OK))
        self.assertNotIn(VALUE, first.detail + first.hint)

    def test_one_cause(self) -> None:
        """What keeps several checks from being made is a failure once; the others are skipped."""

        def raises() -> Iterator[Row]:
            yield from ()
            raise PermissionError(13, "not allowed", "/state")

        rows = list(run_checks((("first", raises()), ("second", raises()), ("third", iter([ok("third", "fine")])))))
        self.assertEqual([row.status.value for row in rows], ["FAIL", "SKIP", "OK"])

    def test_syncs_leave_nothing(self) -> None:
        """The file whose syncs are measured is removed, also when it cannot be written."""
        self.assertTrue(all(seconds > 0 for seconds in time_syncs(str(self.state))))
        self.assertEqual(os.listdir(self.state), [])
        self.assertRaises(OSError, time_syncs, str(self.folder / "missing"))
