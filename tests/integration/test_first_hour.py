"""The first hour: a folder made by ``init``, served by ``dev``, and tried with ``send``, as a stranger would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from harn.testing.server import wait_until
from tests.integration.case import ServerCase

AGENT = """
[[triggers]]
id = "agent"
kind = "a2a-push"
provider = "a2a-push"
match = { events = [] }
handler = "handlers:on_event"
"""


class FirstHourTests(ServerCase):
    """One folder, from nothing to a delivery, an error and its end."""

    def test_first_hour(self) -> None:
        """
        Each command works as typed: the folder is tested, served with demo secrets, sent to, and reloaded at a save;
        the problems of a save are shown with their source. A route of harn's own credentials takes a request.
        """
        self.assertEqual(self.harn("init", "--sender", "stripe", "--name", "pay").status, 0)
        test = [sys.executable, "-m", "unittest"]
        tested = subprocess.run(
            test, cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=180, check=False
        )
        self.assertEqual(tested.returncode, 0, tested.stderr)
        dev, output = self.begin()

        def said(text: str) -> bool:
            self.assertIsNone(dev.poll(), output.read_text("utf-8"))
            return text in output.read_text("utf-8")

        wait_until(lambda: said("HTTP listener ready on"), "the server")
        self.assertTrue(said("demo values for secrets that are not set: HARN_SECRET_STRIPE_SIGNING_SECRET"))
        sent = self.harn("send", "pay", "--kind", "invoice.paid", "--count", "2")
        self.assertEqual((sent.status, sent.stdout.count('"status":"accepted"')), (0, 2), sent)
        wait_until(lambda: said("pay@v1 invoice.paid done, "), "the line of the delivery")
        manifest = (self.directory / "harn.toml").read_text()
        self.replace("harn.toml", manifest.replace("handler =", "handlr ="))
        wait_until(lambda: said('| handlr = "handlers:on_event"'), "the source of the problem")
        self.replace("harn.toml", manifest)
        self.replace("handlers.py", "def on_event(event):\n    raise KeyError('amount')\n")
        wait_until(lambda: said("generation 2"), "the reload")
        self.assertEqual(self.harn("fire", "pay", "--kind", "x.y", "--data", "{}").status, 1)
        self.replace("harn.toml", manifest + AGENT)
        wait_until(lambda: said("generation 3"), "the trigger of an agent")
        sent = self.harn("send", "agent")
        self.assertEqual((sent.status, '"binding":"agent@v1"' in sent.stdout), (0, True), sent)
        dev.send_signal(signal.SIGINT)
        self.assertEqual(dev.wait(60), 0, output.read_text("utf-8"))
        self.assertEqual(output.read_text("utf-8").count("| handlr ="), 1)
        value = (self.directory / ".harn/orchestrator/dev-secret").read_text().strip()
        self.assertNotIn(value, output.read_text("utf-8"))
        self.assertEqual(os.listdir(self.directory / ".harn"), ["orchestrator"])

    def begin(self) -> tuple[subprocess.Popen[bytes], Path]:
        """Run ``harn dev``; return its process and the file with its output."""
        output = self.directory / "output.txt"
        with open(output, "wb") as out:
            dev = subprocess.Popen(
                [sys.executable, "-m", "harn", "dev", "--bind", "127.0.0.1:0"],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(dev.wait)
        self.addCleanup(dev.kill)
        return dev, output

    def test_poll(self) -> None:
        """A folder of a poll runs as it was made: it finds what is there, and what comes; a broken start says where."""
        self.assertEqual(self.harn("init", "--sender", "poll", "--name", "news").status, 0)
        manifest = (self.directory / "harn.toml").read_text()
        self.replace("harn.toml", manifest.replace("every =", "evry ="))
        broken, output = self.begin()
        self.assertEqual(broken.wait(120), 1)
        problem, source, carets = output.read_text("utf-8").splitlines()[3:]
        self.assertIn("error: harn.toml:8: triggers[0] (news): evry: unknown key", problem)
        self.assertTrue(source.startswith("    8 | evry = "), source)
        self.assertEqual(carets, "      | ^^^^")
        self.replace("harn.toml", manifest.replace('"10s"', '"1s"'))
        dev, output = self.begin()
        wait_until(lambda: "line.added done" in output.read_text("utf-8"), "the first event")
        self.assertIn("in a second terminal: harn fire news", output.read_text("utf-8"))
        with open(self.directory / "events.jsonl", "a", encoding="utf-8") as file:
            file.write('{"order": 2}\n')
        wait_until(lambda: '{"found":{"order":2}}' in output.read_text("utf-8"), "the second event")
        dev.send_signal(signal.SIGINT)
        self.assertEqual(dev.wait(60), 0, output.read_text("utf-8"))
