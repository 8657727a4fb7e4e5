"""The systemd units of the examples: shown as they are, and taken by systemd where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "examples" / "systemd"
PAGE = ROOT / "docs" / "howto" / "systemd.md"
COMMAND = "/srv/harn/venv/bin/harn"
WORST_EXPOSURE = 4.0


class UnitTests(SynchronousTestCase):
    """`harn.service` and `harn.socket`."""

    def setUp(self) -> None:
        self.service = (UNITS / "harn.service").read_text("utf-8")
        self.settings = dict(re.findall(r"^(\w+)=(.*)$", self.service, re.MULTILINE))

    def analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run systemd-analyze in a directory with the units, whose command is one that there is."""
        program = shutil.which("systemd-analyze")
        if program is None:
            raise SkipTest("systemd is not installed")
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "harn.service").write_text(self.service.replace(COMMAND, os.path.abspath(sys.executable)))
        shutil.copy(UNITS / "harn.socket", directory)
        return subprocess.run(
            [program, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_UNIT_PATH": f"{directory.resolve()}:"},
        )

    def test_page_shows_them(self) -> None:
        """The page has both units word for word."""
        if not PAGE.exists():
            raise SkipTest("these tests run apart from the source")
        page = PAGE.read_text("utf-8")
        for name in ("harn.service", "harn.socket"):
            self.assertIn(f"```ini\n{(UNITS / name).read_text('utf-8')}```", page, name)

    def test_reload(self) -> None:
        """The default works with systemd 249: ready by notification, and a command that waits and may fail."""
        self.assertEqual(self.settings["Type"], "notify")
        directory = self.settings["ExecStart"].partition("--state-dir ")[2]
        self.assertEqual(self.settings["ExecReload"], f"{COMMAND} orchestrator reload --state-dir {directory}")
        self.assertEqual(directory, f"/var/lib/{self.settings['StateDirectory']}")
        self.assertGreater(int(self.settings["TimeoutStartSec"]), 120)  # the command's own patience
        self.assertGreater(int(self.settings["TimeoutStopSec"]), 30)  # that of a shutdown

    def test_verify(self) -> None:
        """They are verified without a word."""
        done = self.analyze("verify", "--man=no", "./harn.service", "./harn.socket")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_exposure(self) -> None:
        """The service has only the rights that it needs."""
        done = self.analyze("security", "--offline=true", "--no-pager", "./harn.service")
        if "unrecognized option" in done.stderr:
            raise SkipTest("systemd before 250")
        found = re.search(r"exposure level for harn\.service: ([0-9.]+)", done.stdout)
        self.assertIsNotNone(found, done)
        assert found is not None
        self.assertLess(float(found[1]), WORST_EXPOSURE)
