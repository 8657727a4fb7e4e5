"""README's "Use it", typed as it stands, in an empty folder, with the two files that it shows."""

from __future__ import annotations

import json
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
    """The commands of each block, in order."""

    def setUp(self) -> None:
        if not README.exists():
            raise SkipTest("these tests run apart from the source")
        super().setUp()
        text = README.read_text("utf-8")
        part = text[text.index("## Use it") : text.index("## Read on")]
        self.blocks: dict[str, list[str]] = {}
        for found in BLOCK.finditer(part):
            self.blocks.setdefault(found["language"], []).append(found["text"])
        listen = {"HARN_ORCHESTRATOR_LISTEN": "127.0.0.1:0", "HARN_ORCHESTRATOR_API_KEYS": None}
        self.environ = environment({**listen, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        for language in ("toml", "python"):
            (text,) = self.blocks[language]
            self.write(text.partition("\n")[0].removeprefix("# "), text)

    def run_typed(self, command: list[str], folder: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, or in a folder within it, with this Python."""
        words = {"harn": [sys.executable, "-m", "harn"], "twistd": [*TWISTD]}
        return subprocess.run(
            [*words[command[0]], *command[1:]],
            cwd=self.directory / folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180.0,
            check=False,
        )

    def end(self) -> None:
        """End the daemon if it is still there."""
        pid_file = self.directory / "twistd.pid"
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGKILL)

    def test_as_typed(self) -> None:
        """Each command does what it says, without a key; `pip install` and the one in the foreground are left out."""
        self.addCleanup(self.end)
        usual, _, after_trouble = (text.splitlines() for text in self.blocks["sh"])
        self.assertEqual(usual.pop(), "kill $(cat twistd.pid)")
        ran = 0
        event_id = ""
        for line in (*usual, *after_trouble):
            command = line.partition("#")[0].replace("EVENT_ID", event_id).split()
            if command[0] not in ("harn", "twistd") or "serve" in command:
                continue
            done = self.run_typed(command[: command.index(">")] if ">" in command else command)
            self.assertEqual((done.returncode, done.stderr if command[0] == "twistd" else ""), (0, ""), (line, done))
            if "fire" in command:
                self.assertIn("status=dispatched", done.stdout)
                listed = json.loads(self.run_typed(["harn", "orchestrator", "deliveries", "--json"]).stdout)
                event_id = listed["deliveries"][0]["event_id"]
            ran += 1
        self.assertGreaterEqual(ran, 16)
        pid = int((self.directory / "twistd.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), "the daemon's end")

    def test_empty_folder(self) -> None:
        """The folder that ``init`` makes is served by ``dev``, which accepts what ``send`` signs."""
        _, typed, _ = (text.splitlines() for text in self.blocks["sh"])
        init, enter, serve, send = (line.partition("#")[0].split() for line in typed)
        self.assertEqual((enter, serve), (["cd", "shop"], ["harn", "dev"]))
        made = self.run_typed(init)
        self.assertEqual((made.returncode, made.stderr), (0, ""), made)
        output = self.directory / "output.txt"
        with open(output, "wb") as out:
            dev = subprocess.Popen(
                [sys.executable, "-m", "harn", "dev"],
                cwd=self.directory / "shop",
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(dev.wait)
        self.addCleanup(dev.kill)

        def ready() -> bool:
            self.assertIsNone(dev.poll(), output.read_text("utf-8"))
            return "HTTP listener ready on" in output.read_text("utf-8")

        wait_until(ready, "the server")
        sent = self.run_typed(send, "shop")
        self.assertEqual((sent.returncode, '"status":"accepted"' in sent.stdout), (0, True), sent)
