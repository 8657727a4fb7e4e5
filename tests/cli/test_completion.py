"""Completion: the values that a shell gets for a line that is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.main import cli
from harn.store.lock import state_path


class CompletionTests(SynchronousTestCase):
    """Lines, with the word that is completed at their end."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.state = str(self.folder)
        self.manifest = self.folder / "harn.toml"

    def complete(self, *words: str) -> list[str]:
        """Return the values for the last word, as fish gets them: one a line, a tab before its help."""
        environ = {
            "_HARN_COMPLETE": "fish_complete",
            "COMP_WORDS": " ".join(["harn", *words[:-1]]),
            "COMP_CWORD": words[-1],
            "HARN_ORCHESTRATOR_STATE_DIR": self.state,
            "HARN_ORCHESTRATOR_MANIFEST": str(self.manifest),
        }
        result = CliRunner().invoke(cli, [], prog_name="harn", env=environ)
        self.assertEqual(result.exit_code, 0, result.output)
        return [line.partition(",")[2].partition("\t")[0] for line in result.stdout.splitlines() if line]

    def serve(self) -> None:
        """Write the state file of a server."""
        triggers = [{"id": "gh", "version": 2}, {"id": "gh", "version": 1}, {"id": "pay", "version": 1}]
        Path(state_path(self.state)).write_text(json.dumps({"generation": 3, "triggers": triggers}))

    def test_commands(self) -> None:
        """Commands are completed by both of their names, and options."""
        self.assertEqual(self.complete("re"), ["reload", "resume", "replay", "recover", "restore"])
        self.assertEqual(self.complete("orchestrator", "relo"), ["reload"])
        self.assertIn("--dry-run", self.complete("reload", "--d"))

    def test_names(self) -> None:
        """Triggers, binding versions and generations come from the state file."""
        self.serve()
        self.assertEqual(self.complete("fire", ""), ["gh", "pay"])
        self.assertEqual(self.complete("send", "p"), ["pay"])
        self.assertEqual(self.complete("deliveries", "--trigger", "g"), ["gh"])
        self.assertEqual(self.complete("orchestrator", "pause", "p"), ["pay"])
        self.assertEqual(self.complete("drains", "--cancel", "gh"), ["gh@v2", "gh@v1"])
        self.assertEqual(self.complete("show", ""), ["3", "2", "1"])

    def test_without_a_server(self) -> None:
        """Before a server has run, triggers come from the manifest; of a broken one there are none."""
        self.manifest.write_text('[[triggers]]\nid = "written"\n')
        self.assertEqual(self.complete("send", ""), ["written"])
        self.manifest.write_text("nonsense [")
        self.assertEqual(self.complete("send", ""), [])
        self.manifest.unlink()
        self.assertEqual(self.complete("send", ""), [])

    def test_scripts(self) -> None:
        """The script for each shell is printed."""
        for shell in ("bash", "zsh", "fish"):
            done = subprocess.run(
                [sys.executable, "-m", "harn"],
                env={**os.environ, "_HARN_COMPLETE": f"{shell}_source"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual((done.returncode, f"_HARN_COMPLETE={shell}_complete" in done.stdout), (0, True), done)
