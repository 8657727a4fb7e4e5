"""``init``: the files of a first trigger, and what keeps it from writing any."""

from __future__ import annotations

import os
import sys
import tomllib
import unittest
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.init import known_senders
from harn.cli.main import cli
from harn.connectors.catalog import Catalog
from harn.manifest.load import check_document
from harn.manifest.source import ManifestSource
from harn.reload.build import installed_rules

FILES = [".env.example", ".gitignore", "handlers.py", "harn.schema.json", "harn.toml", "test_handlers.py"]


class InitTests(SynchronousTestCase):
    """What a stranger gets."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())

    def init(self, *arguments: str, typed: str | None = None) -> Result:
        """Run the command, on a terminal where something is ``typed``."""
        result = CliRunner().invoke(cli, ["init", str(self.folder), *arguments], prog_name="harn", input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def files(self) -> list[str]:
        """Return the paths of all files in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def test_every_sender(self) -> None:
        """For each sender, the manifest has no problem, and names its schema in the first line."""
        rules = installed_rules()
        for sender in known_senders(Catalog.discover().plugins):
            self.folder = Path(self.mktemp())
            self.assertEqual(self.init("--sender", sender).exit_code, 0, sender)
            self.assertEqual(self.files(), sorted([*FILES, "events.jsonl"] if sender == "poll" else FILES))
            text = (self.folder / "harn.toml").read_bytes()
            self.assertTrue(text.startswith(b"#:schema ./harn.schema.json\n"))
            loaded = check_document(ManifestSource.of(str(self.folder / "harn.toml"), text, "harn.toml"), None, rules)
            (spec,) = loaded.manifest.triggers.values()
            self.assertEqual((spec.id, spec.provider, spec.handler), (sender, sender, "handlers:on_event"))
            variables = (self.folder / ".env.example").read_text()
            self.assertTrue(spec.secrets or sender in ("cron", "poll"), sender)
            for reference in (text for texts in spec.secrets.values() for text in texts):
                name = reference.upper().replace("/", "_").replace("-", "_")
                self.assertIn(f"\nHARN_SECRET_{name}=\n", variables)

    def test_flags(self) -> None:
        """The id and the handler are as given; its module is a file of that name."""
        self.assertEqual(self.init("--sender", "github", "--name", "gh", "--handler", "rules.gh::opened").exit_code, 0)
        trigger = tomllib.loads((self.folder / "harn.toml").read_text())["triggers"][0]
        self.assertEqual((trigger["id"], trigger["handler"]), ("gh", "rules.gh:opened"))
        self.assertIn("async def opened(", (self.folder / "rules" / "gh.py").read_text())
        self.assertIn('run_handler("rules.gh:opened"', (self.folder / "test_handlers.py").read_text())

    def test_says_what_is_next(self) -> None:
        """The output names the files, and the commands to type."""
        said = self.init("--name", "gh").stdout
        for word in (*FILES, f"cd {self.folder}", "harn dev", "harn send gh", "python -m unittest"):
            self.assertIn(word, said)

    def test_of_each_kind(self) -> None:
        """The tests of the folder pass, whichever way its events come; what is next is to be typed for that way."""
        for sender, step in (
            ("github", "harn send it "),
            ("a2a-push", "harn send it "),
            ("cron", "harn fire it "),
            ("cron", "harn schedule "),
            ("poll", "echo '{\"order\": 2}' >> rules/events.jsonl"),
        ):
            self.folder = Path(self.mktemp())
            said = self.init("--sender", sender, "--name", "it", "--handler", "rules.first:find_events").stdout
            self.assertIn(f"  {step}", said)
            self.assertEqual(self.run_tests(), [], sender)

    def run_tests(self) -> list[str]:
        """Run the tests of the folder in this process; return what failed."""
        before = set(sys.modules)
        result = unittest.TestResult()
        with patch.object(sys, "path", [str(self.folder.absolute()), *sys.path]):
            unittest.defaultTestLoader.loadTestsFromName("test_handlers").run(result)
        for name in {*sys.modules} - before:
            if name == "test_handlers" or name.partition(".")[0] == "rules":
                del sys.modules[name]
        self.assertGreater(result.testsRun, 0)
        return [text for _, text in (*result.failures, *result.errors)]

    def test_nothing_is_overwritten(self) -> None:
        """Where one of the files is there, a dangling link too, all of them stay away, and it is named."""
        self.folder.mkdir()
        os.symlink("nowhere", self.folder / "handlers.py")
        result = self.init()
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("error: ", result.stderr)
        self.assertIn("has handlers.py already, and nothing was written", result.stderr)
        self.assertEqual(os.listdir(self.folder), ["handlers.py"])

    def test_all_or_none(self) -> None:
        """Where one of the files cannot be written, none stays, so that a second try is not refused."""
        self.folder.mkdir()
        (self.folder / "rules").write_text("a file")
        result = self.init("--handler", "rules.gh:opened")
        self.assertEqual(result.exit_code, 1, result.output)
        self.assertEqual(os.listdir(self.folder), ["rules"])
        self.folder = self.folder / "new" / "shop"
        with patch("harn.cli.init.write_text", side_effect=OSError(28, "No space left on device")):
            said = self.init().stderr
        self.assertIn("harn.toml cannot be written: No space left on device; nothing was written", said)
        self.assertFalse(self.folder.parent.exists())

    def test_asks_on_a_terminal(self) -> None:
        """On a terminal sender and name are asked for; Enter takes what is usual; the end of input writes nothing."""
        with patch("harn.cli.init.is_terminal", lambda: True):
            self.assertEqual(self.init(typed="stripe\npayments\n").exit_code, 0)
            trigger = tomllib.loads((self.folder / "harn.toml").read_text())["triggers"][0]
            self.assertEqual((trigger["id"], trigger["provider"]), ("payments", "stripe"))
            self.folder = Path(self.mktemp())
            again = self.init(typed="strip\nstripe\na/b\npay\n")
            self.assertEqual(again.exit_code, 0)
            self.assertIn("did you mean 'stripe'?", again.output)
            self.assertIn("letters, digits, - and _ only", again.output)
            self.assertIn('id = "pay"', (self.folder / "harn.toml").read_text())
            self.folder = Path(self.mktemp())
            self.assertEqual(self.init(typed="\n\n").exit_code, 0)
            self.assertIn('id = "github"', (self.folder / "harn.toml").read_text())
            self.folder = Path(self.mktemp())
            self.assertEqual(self.init(typed="").exit_code, 1)
            self.assertFalse(self.folder.exists())

    def test_empty_name(self) -> None:
        """An empty DIR, as of a variable that is not set, is not this folder."""
        result = CliRunner().invoke(cli, ["init", ""], prog_name="harn")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("DIR must name a folder", result.stderr)

    def test_refused(self) -> None:
        """A sender that is not there, a name that no URL has, and no handler: each says what to write."""
        for arguments, said in (
            (("--sender", "strip"), "did you mean 'stripe'?"),
            (("--sender", "fax"), "must be a provider that is installed"),
            (("--sender", "fax"), "known: "),
            (("--name", "a/b"), "letters, digits, - and _ only"),
            (("--name", ""), "letters, digits, - and _ only"),
            (("--handler", "https://example.org"), "write module:function"),
            (("--handler", "test_handlers:on_event"), "has the tests of the handlers"),
            (("--handler", "harn.rules:on_event"), "would hide an installed one"),
            (("--handler", "json:on_event"), "would hide an installed one"),
            (("--handler", "twisted.rules:on_event"), "would hide an installed one"),
            (("--handler", "handlers:class"), "--handler must be a Python function"),
        ):
            result = self.init(*arguments)
            self.assertEqual((result.exit_code, result.stdout), (2, ""), arguments)
            self.assertIn(said, result.stderr)
            self.assertFalse(self.folder.exists())
