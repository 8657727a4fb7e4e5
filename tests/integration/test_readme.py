"""README's "Use it", typed as it stands, in an empty folder, with the two files that it shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest

from harn.testing.server import TWISTD, environment, is_alive, wait_until
from tests.integration.case import ServerCase

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


class UseItTests(ServerCase):
    """The commands of one block, in order."""

    def setUp(self) -> None:
        if not README.exists():
            raise SkipTest("these tests run apart from the source")
        super().setUp()
        text = README.read_text("utf-8")
        part = text[text.index("## Use it") : text.index("## Read on")]
        self.blocks = {found["language"]: found["text"] for found in BLOCK.finditer(part)}
        listen = {"HARN_ORCHESTRATOR_LISTEN": "127.0.0.1:0", "HARN_ORCHESTRATOR_API_KEYS": None}
        self.environ = environment({**listen, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        for language in ("toml", "python"):
            text = self.blocks[language]
            self.write(text.partition("\n")[0].removeprefix("# "), text)

    def end(self) -> None:
        """End the daemon if it is still there."""
        pid_file = self.directory / "twistd.pid"
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGKILL)

    def test_as_typed(self) -> None:
        """Each command does what it says, without a key; `pip install` and the one in the foreground are left out."""
        self.addCleanup(self.end)
        words = {"harn": [sys.executable, "-m", "harn"], "twistd": [*TWISTD]}
        ran = 0
        for line in self.blocks["sh"].splitlines():
            command = line.partition("#")[0].split()
            if command[0] not in words or "serve" in command:
                continue
            arguments = command[1 : command.index(">")] if ">" in command else command[1:]
            done = subprocess.run(
                [*words[command[0]], *arguments],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=180.0,
                check=False,
            )
            self.assertEqual((done.returncode, done.stderr if command[0] == "twistd" else ""), (0, ""), (line, done))
            if "fire" in command:
                self.assertIn("status=dispatched", done.stdout)
            ran += 1
        self.assertGreaterEqual(ran, 8)
        self.assertEqual(self.blocks["sh"].splitlines()[-1], "kill $(cat twistd.pid)")
        pid = int((self.directory / "twistd.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), "the daemon's end")
