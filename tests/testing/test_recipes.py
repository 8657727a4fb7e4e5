"""The recipes in ``examples/recipes``: their own tests pass, their manifests have no problem, and the page has them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import harn
from harn.manifest.load import check_document
from harn.manifest.source import read_manifest
from harn.reload.build import installed_rules

ROOT = Path(harn.__file__).parents[1]
RECIPES = ROOT / "examples" / "recipes"


class RecipeTests(SynchronousTestCase):
    """Each recipe, as its reader would run it."""

    def setUp(self) -> None:
        if not RECIPES.exists():
            raise SkipTest("these tests run apart from the source")

    def run_tests(self, name: str, count: int) -> None:
        """Run a recipe's tests in a copy of its folder, where nothing may be left unclosed."""
        folder = Path(self.mktemp())
        shutil.copytree(RECIPES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "unittest"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"Ran {count} tests", done.stderr)
        self.assertNotIn("Warning", done.stderr)

    def test_slack(self) -> None:
        """What Slack answers decides how the attempt ends."""
        self.run_tests("slack", 5)

    def test_github_issue(self) -> None:
        """An error gets one issue, however often it is handled."""
        self.run_tests("github-issue", 5)

    def test_deploy(self) -> None:
        """The script runs for pushes to the main branch, with a commit and nothing else."""
        self.run_tests("deploy", 7)

    def test_postgresql(self) -> None:
        """The newest state stays, whatever the order of events."""
        self.run_tests("postgresql", 4)

    def test_manifests(self) -> None:
        """Each manifest has no problem, bounds its handler's secrets, and names functions that there are."""
        names = sorted(each.name for each in RECIPES.iterdir())
        self.assertEqual(names, ["deploy", "github-issue", "postgresql", "slack"])
        page = (ROOT / "docs" / "howto" / "recipes.md").read_text("utf-8")
        for name in names:
            path = RECIPES / name / "harn.toml"
            loaded = check_document(read_manifest(str(path)), None, installed_rules())
            code = (RECIPES / name / "handlers.py").read_text("utf-8")
            for spec in loaded.manifest.triggers.values():
                self.assertIsNotNone(spec.handler_secrets, name)
                self.assertIsNotNone(spec.dedupe_key, name)
                sent = re.search(
                    rf"^harn send {spec.id} --kind (\S+) --data @event.json +# {name}$", page, re.MULTILINE
                )
                assert sent is not None, name
                self.assertTrue(any(fnmatchcase(sent[1], each) for each in spec.events), (name, sent[1]))
            wanted = re.findall(r'^(?:handler|when) = "handlers:(\w+)"', path.read_text("utf-8"), re.MULTILINE)
            self.assertTrue(wanted, name)
            self.assertEqual([each for each in wanted if f"\ndef {each}(" not in code], [], name)

    def test_page(self) -> None:
        """The page links to every file of every recipe, and names the variable of every secret."""
        page = ROOT / "docs" / "howto" / "recipes.md"
        text = page.read_text("utf-8")
        for folder in RECIPES.iterdir():
            for path in folder.iterdir():
                if path.is_file():
                    self.assertIn(f"](../../examples/recipes/{folder.name}/{path.name})", text)
            manifest = (folder / "harn.toml").read_text("utf-8")
            for reference in re.findall(r'"([a-z]+/[a-z-]+)"', manifest):
                variable = f"HARN_SECRET_{re.sub('[/-]', '_', reference).upper()}"
                self.assertIn(f"{variable}=", text, folder.name)
