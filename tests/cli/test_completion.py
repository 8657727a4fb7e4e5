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

    def test_included_files(self) -> None:
        """Triggers of included files are completed; a file that is broken, or is not as it must be, has none."""
        (self.folder / "more.toml").write_text('[[triggers]]\nid = "more"\n')
        (self.folder / "broken.toml").write_text("nonsense [")
        self.manifest.write_text('include = ["*.toml", 5]\n[[triggers]]\nid = "first"\n[[triggers]]\nid = 5\n')
        self.assertEqual(self.complete("send", ""), ["first", "more"])
        for text in ("triggers = 5", "include = 5", 'triggers = ["a"]'):
            self.manifest.write_text(text)
            self.assertEqual(self.complete("send", ""), [])
        Path(state_path(self.state)).write_text('{"triggers": null, "generation": "3"}')
        self.assertEqual((self.complete("send", ""), self.complete("show", "")), ([], []))

    def test_files(self) -> None:
        """A path is left to the shell; of ``@FILE`` the files are completed, hidden ones where they are meant."""
        for name in ("event.json", "events", ".hidden"):
            (self.folder / name).mkdir() if name == "events" else (self.folder / name).write_text("{}")
        begin = f"@{self.folder}/"
        self.assertEqual(self.complete("send", "gh", "-d", f"{begin}ev"), [f"{begin}event.json", f"{begin}events/"])
        self.assertNotIn(f"{begin}.hidden", self.complete("fire", "gh", "--data", begin))
        self.assertEqual(self.complete("fire", "gh", "--data", "@/nowhere/x"), [])
        self.assertEqual(self.complete("send", "gh", "-d", "text"), [])
        self.assertEqual(self.complete("serve", "-c", "har"), ["har"])

    def test_bash(self) -> None:
        """In bash, which takes words apart at ``@``, binding versions and files are completed all the same."""
        self.serve()
        Path(self.folder, "event.json").write_text("{}")
        for line, values in (
            ("harn drains --cancel gh", ["gh@v2", "gh@v1"]),
            ("harn drains --cancel gh@", ["@v2", "@v1"]),
            ("harn drains --cancel gh@v1", ["@v1"]),
            ("harn drains --cancel=gh@v1", ["@v1"]),
            ("harn deliveries --trigger=p", ["pay"]),
            ("harn drains --cancel 'gh@v1", ["gh@v1"]),
            ("harn fire ", ["gh", "pay"]),
            (f"harn fire gh -d @{self.folder}/ev", [f"@{self.folder}/event.json"]),
        ):
            environ = {
                "_HARN_COMPLETE": "bash_complete",
                "COMP_LINE": line,
                "COMP_WORDBREAKS": " \t\n\"'@><=;|&(:",
                "HARN_ORCHESTRATOR_STATE_DIR": self.state,
            }
            result = CliRunner().invoke(cli, [], prog_name="harn", env=environ)
            self.assertEqual(result.stdout.split(), [f"plain,{value}" for value in values], line)

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
