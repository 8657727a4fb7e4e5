"""``harn connector``: what it prints, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.main import cli
from tests.test_docs import DOCS, blocks


class CheckTests(SynchronousTestCase):
    """``harn connector check``."""

    def test_passed(self) -> None:
        """A connector that passes: its counts, and exit 0."""
        result = CliRunner().invoke(cli, ["connector", "check", "harn.connectors.providers.slack"])
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertRegex(
            result.output, r"^slack \(harn\.connectors\.providers\.slack; webhook\): \d+ passed, 0 failed, \d+ skipped$"
        )

    def test_json(self) -> None:
        """``--json`` gives every check."""
        result = CliRunner().invoke(cli, ["connector", "check", "harn.connectors.providers.slack", "--json"])
        (checked,) = json.loads(result.output)["checked_connectors"]
        self.assertEqual((checked["provider"], checked["kinds"]), ("slack", ["webhook"]))
        self.assertIn({"name": "altered body", "status": "passed", "detail": ""}, checked["checks"])

    def test_unknown(self) -> None:
        """A package that is not there is an error."""
        result = CliRunner().invoke(cli, ["connector", "check", "no_such_package"])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("there is no package 'no_such_package'", str(result.exception) + result.output)


class FolderTests(SynchronousTestCase):
    """``harn connector test`` on the folder that the documentation makes."""

    def setUp(self) -> None:
        """Write the folder."""
        self.folder = Path(self.mktemp())
        (self.folder / "harn/plugins").mkdir(parents=True)
        self.plugin, tests, *_ = blocks(DOCS / "howto" / "write-a-connector.md", "python")
        (self.folder / "harn/plugins/acme.py").write_text(self.plugin)
        (self.folder / "test_acme.py").write_text(tests)

    def run_test(self) -> tuple[int, dict[str, str]]:
        """Run the command; return its exit status and the status of each step."""
        result = CliRunner().invoke(cli, ["connector", "test", str(self.folder), "--json"])
        return result.exit_code, {step["name"]: step["status"] for step in json.loads(result.output)["checks"]}

    def test_folder(self) -> None:
        """The connector and its tests pass; with a fault, both fail; without tests of its own, they are skipped."""
        self.assertEqual(self.run_test(), (0, {"suite": "passed", "tests": "passed"}))
        (self.folder / "harn/plugins/acme.py").write_text(self.plugin.replace("header=", "heading="))
        (self.folder / "test_acme.py").unlink()
        self.assertEqual(self.run_test(), (1, {"suite": "failed", "tests": "skipped"}))
