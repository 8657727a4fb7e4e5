"""What commands do when their output cannot be written to."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

from msgspec import to_builtins
from msgspec.structs import replace

from harn.cli.main import READER_GONE
from harn.cli.output import describe
from harn.history.operations import describe_history
from tests.cli.test_commands import NOTHING, CommandCase
from tests.cli.test_generations import LIVE, RECORD

TRACEBACK = "Traceback"


class OutputTests(CommandCase):
    """Standard output and error that are full, closed, or have no reader."""

    def run_shell(
        self, redirection: str, *words: str, stdout: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with a shell's redirections; return its status and its standard error."""
        line = f'"$0" -m harn "$@" {redirection}'
        environ = {name: value for name, value in {**os.environ, **self.environ}.items() if value is not None}
        command = ["sh", "-c", line, sys.executable, *words]
        return subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    def test_closed(self) -> None:
        """With standard streams closed a reload is still requested, and the exit status shows its outcome."""
        server = self.serve((200, NOTHING), (200, NOTHING))
        for redirection in (">&-", "<&- >&- 2>&-"):
            done = self.run_shell(redirection, "orchestrator", "reload", "--state-dir", self.state_dir)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(server.seen), 2)

    def test_full(self) -> None:
        """A full disk is an error in words, for a dry run a problem, also while help and usage errors are printed."""
        self.serve((200, NOTHING), (200, NOTHING))
        place = ("--state-dir", self.state_dir)
        for status, words in (
            (1, ("orchestrator", "reload", *place)),
            (2, ("orchestrator", "plan", *place)),
            (1, ("--help",)),
        ):
            done = self.run_shell(">/dev/full", *words)
            self.assertEqual(
                (done.returncode, done.stderr),
                (status, "error: standard output cannot be written to: No space left on device\n"),
            )
        self.assertEqual(self.run_shell("2>/dev/full", "orchestrator", "relod").returncode, 2)

    def test_reader_is_gone(self) -> None:
        """A reader that has enough ends the command without a word, as SIGPIPE ends others; help and dry runs, too."""
        records = [replace(RECORD, number=number) for number in range(1000)]
        generations = to_builtins(describe_history(records, None))
        self.serve((200, {"generations": generations}), (200, {**LIVE, "probation": None}), (200, NOTHING))
        place = ("--state-dir", self.state_dir)
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        for words in (("orchestrator", "history", *place), ("orchestrator", "plan", *place), ("--help",)):
            done = self.run_shell("", *words, stdout=writer)
            self.assertEqual((done.returncode, done.stderr), (READER_GONE, ""), words)

    def test_descriptions(self) -> None:
        """What the system refused is said with its file, if it is about one."""
        for error, said in (
            (OSError(errno.ENOSPC, "full"), "standard output cannot be written to: full"),
            (FileNotFoundError(errno.ENOENT, "none", b"/x"), "/x: none"),
            (FileNotFoundError(errno.ENOENT, "none"), "the system refused: none"),
            (OSError(), "the system refused: OSError"),
        ):
            self.assertEqual(describe(error), said)
