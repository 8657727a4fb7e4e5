"""The example project whose handlers are tested with pytest, run as its reader would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import harn
from harn.manifest.load import check_document
from harn.manifest.source import read_manifest
from harn.reload.build import installed_rules

ROOT = Path(harn.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "pytest"


class PytestExampleTests(SynchronousTestCase):
    """``examples/pytest``."""

    def setUp(self) -> None:
        if not EXAMPLE.exists():
            raise SkipTest("these tests run apart from the source")

    def test_passes(self) -> None:
        """All of its tests pass, in a folder of their own."""
        if find_spec("pytest") is None:
            raise SkipTest("pytest is not installed; it is part of the extra named test")
        folder = Path(self.mktemp())
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("8 passed", done.stdout)

    def test_manifest(self) -> None:
        """Its manifest has no problem."""
        loaded = check_document(read_manifest(str(EXAMPLE / "harn.toml")), None, installed_rules())
        self.assertEqual(list(loaded.manifest.triggers), ["gh"])
