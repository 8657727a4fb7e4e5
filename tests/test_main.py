"""Where the command begins: signals that come early, and standard descriptors that are closed."""

from __future__ import annotations

import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from harn.__main__ import serves

EARLY = """
import os, signal, sys
import harn.__main__, harn.cli.main

for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_DFL)  # under nohup a child ignores SIGHUP from its start

def run():
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    print("alive")

harn.cli.main.main = run
harn.__main__.main()
"""
INTERRUPTED = """
import os, signal, sys
import harn.__main__

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "harn.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
harn.__main__.main()
"""
CLOSED = """
import os, sys
from harn.__main__ import open_standard_streams

for number in (0, 1, 2):
    os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
open_standard_streams()
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print("to nobody")
print("to nobody", file=sys.stderr, flush=True)
os.write(file, f"{file} {sys.stdin.read()!r}".encode())
"""


class MainTests(SynchronousTestCase):
    """The first lines of the program."""

    def run_python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end."""
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )

    def test_early_signals(self) -> None:
        """Signals that a server acts on do not end it before it can; any other command they end as usual."""
        done = self.run_python(EARLY, "orchestrator", "serve", "--watch")
        self.assertEqual((done.returncode, done.stdout), (0, "alive\n"), done.stderr)
        self.assertLess(self.run_python(EARLY, "orchestrator", "fire", "serve").returncode, 0)

    def test_interrupted_while_it_begins(self) -> None:
        """Ctrl-C while the program is still imported ends it as it ends any program, without a traceback."""
        done = self.run_python(INTERRUPTED, "orchestrator", "serve")
        self.assertEqual((done.returncode, done.stderr), (-signal.SIGINT, ""))

    def test_commands_that_serve(self) -> None:
        """It is the command that counts, not a word in its arguments."""
        for arguments in (["orchestrator", "serve"], ["serve", "--watch"], ["orchestrator", "serve", "--config", "x"]):
            self.assertTrue(serves(arguments), arguments)
        for arguments in ([], ["orchestrator", "fire", "serve"], ["orchestrator", "reload"]):
            self.assertFalse(serves(arguments), arguments)

    def test_closed_descriptors(self) -> None:
        """What is opened later does not become standard output, where others would write into it."""
        path = self.mktemp()
        done = self.run_python(CLOSED, path)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(path, encoding="ascii") as found:
            self.assertEqual(found.read(), "3 ''")
