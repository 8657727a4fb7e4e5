"""``dev``: where it listens, and the lines that it prints of a server's events."""

from __future__ import annotations

import os
import pty
import signal
import socket
import termios
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.demo_secret import DemoEnvironment
from harn.cli.dev import Stream, Terminal, place_of, source_of, trial_of, usual_address
from harn.cli.main import cli
from harn.lifecycle import Lifecycle, ServerStarted, Settled, SettledDelivery
from harn.model.delivery import DONE, WAITING, Attempt, Settlement
from harn.model.event import Envelope, encode_envelope
from harn.options import ServeOptions
from harn.reload.excerpts import Excerpts
from harn.reload.results import ProblemInfo
from harn.testing.clocks import ThreadClock
from harn.testing.kit import KitServer
from tests.triggers.examples import spec

ENVELOPE = encode_envelope(
    Envelope(
        id="trigger_evt_1",
        provider="github",
        kind="push",
        received_at="2027-01-15T08:00:00.000Z",
        dedupe_key="d",
        trace_id="t",
        headers={},
        signature_status={},
        payload={},
        lifted={},
        body_format="none",
    )
)


class DevTests(SynchronousTestCase):
    """The command."""

    def test_no_manifest(self) -> None:
        """In an empty folder it names the command that writes a manifest, and makes nothing."""
        state_dir = self.mktemp()
        words = ["dev", "--config", self.mktemp(), "--state-dir", state_dir]
        result = CliRunner().invoke(cli, words, prog_name="harn")
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("write one, and a handler, with: harn init", result.stderr)
        self.assertFalse(os.path.exists(state_dir))

    def test_address(self) -> None:
        """Another port is taken where the usual one is in use; an address that was given is kept."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            used = f"127.0.0.1:{taken.getsockname()[1]}"
            with patch("harn.cli.dev.USUAL", used):
                self.assertEqual(usual_address({"bind": None}, {}), {"bind": "127.0.0.1:0"})
                self.assertEqual(usual_address({"bind": used}, {}), {"bind": used})
                self.assertEqual(usual_address({"bind": None}, {"HARN_ORCHESTRATOR_LISTEN": used}), {"bind": None})
        with patch("harn.cli.dev.USUAL", used):
            self.assertEqual(usual_address({"bind": None}, {}), {"bind": None})


class StreamTests(SynchronousTestCase):
    """The lines of a server."""

    def setUp(self) -> None:
        options = ServeOptions.from_values({"config": "harn.toml"}, {}, self.mktemp())
        self.stream = Stream(options, DemoEnvironment({}, "demo"))
        self.lifecycle = Lifecycle()
        self.stream.subscribe(self.lifecycle)
        self.envelope = ENVELOPE

    def settled(self, **changes: Any) -> str:
        """Emit the outcome of an attempt; return the line that is printed."""
        attempt = Attempt(number=1, version=2, started_at=10.0, completed_at=10.25, outcome="success")
        values = {"delivery_id": 1, "state": DONE, "version": 2, "attempts": 1, "attempt": attempt, **changes}
        settlement = Settlement(**values)
        with redirect_stdout(StringIO()) as out:
            one = SettledDelivery("gh", "github", "gh@v2", "trigger_evt_1", self.envelope, False, settlement)
            self.lifecycle.emit(Settled.of([one]))
        return out.getvalue()

    def test_one_line_a_delivery(self) -> None:
        """A line has version, kind, outcome, time, id and result; the result is shortened, and cannot steer."""
        said = self.settled(result=b'{"n":1}')
        self.assertRegex(said, r'^\d\d:\d\d:\d\d gh@v2 push done, 250 ms  trigger_evt_1  \{"n":1\}\n$')
        self.assertTrue(self.settled(result=b"null").endswith("trigger_evt_1\n"))
        self.assertLess(len(self.settled(result=b'"' + b"x" * 5000 + b'"')), 400)
        self.assertIn("\\x9b", self.settled(result='"\x9b"'.encode()))

    def test_failures_are_left_to_the_log(self) -> None:
        """A failed attempt has its line, with its traceback, in the log."""
        failed = Attempt(
            number=1,
            version=2,
            started_at=1.0,
            completed_at=2.0,
            outcome="failed",
            error_class="handler_error",
            error="KeyError",
        )
        self.assertEqual(self.settled(state=WAITING, attempt=failed), "")
        self.assertEqual(self.settled(attempt=None), "")

    def test_key_without_a_delivery(self) -> None:
        """The key that sends again names a command while there is nothing to send; other keys do nothing."""
        with redirect_stdout(StringIO()) as out:
            for key in "rx":
                self.stream.press(key)
        self.assertEqual(out.getvalue().count("harn send TRIGGER"), 1)

    def test_how_to_try_it(self) -> None:
        """A trigger that gets requests is tried with `send`, one of a schedule with `fire`."""
        self.assertEqual(trial_of(spec("gh", path="/triggers/gh")), "harn send gh")
        self.assertEqual(trial_of(spec("night", kind="cron", provider="cron", path="")), "harn fire night")

    def test_place(self) -> None:
        """The command names the state directory where one in this folder would not find it."""
        for path, said in (
            (".harn/orchestrator", ""),
            ("state", " -s state"),
            ("a b", " -s 'a b'"),
            ("/srv/harn", " -s /srv/harn"),
            (f"{os.getcwd()}-2", f" -s {os.getcwd()}-2"),
        ):
            self.assertEqual(place_of(os.path.join(os.getcwd(), path)), said)

    def test_key_of_the_console(self) -> None:
        """The key prints the address of the console and where the token is, and opens it where there is a desktop."""
        server = KitServer(ThreadClock())
        with patch("sys.stdin", None), redirect_stdout(StringIO()) as out, patch("webbrowser.open") as opened:
            self.stream.install(server)
            server.lifecycle.emit(ServerStarted("http://127.0.0.1:8081", 1))
            with patch("harn.cli.dev.has_desktop", lambda environ: False):
                self.stream.press("o")
            opened.assert_not_called()
            self.assertIn("http://127.0.0.1:8081/console/", out.getvalue())
            with patch("harn.cli.dev.has_desktop", lambda environ: True):
                self.stream.press("o")
        opened.assert_called_once_with("http://127.0.0.1:8081/console/")
        self.assertIn("http://127.0.0.1:8081/console/", out.getvalue())
        self.assertIn("/token", out.getvalue())

    def test_source(self) -> None:
        """Each problem of a save has its line, with its number; the file is named only where there are several."""
        path, other = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        path.write_text("a = 1\nhandlr = 2\nhandlr = 3\n")
        other.write_text("x = (\n")
        problem = ProblemInfo(file=str(path), line=2, where="handlr", message="unknown key")
        again = ProblemInfo(file=str(path), line=3, where="handlr", message="unknown key")
        wrong = ProblemInfo(file=str(other), line=1, message="SyntaxError: '(' was never closed")
        excerpt = ["    2 | handlr = 2", "      | ^^^^^^"]
        self.assertEqual(source_of([problem, again], Excerpts(None)), excerpt)
        self.assertEqual(
            source_of([problem, again, wrong, ProblemInfo(file="x", message="no line")], Excerpts(None)),
            [f"{path}:", *excerpt, f"{other}:", "    1 | x = (", "      | ^^^^^"],
        )


class TerminalTests(SynchronousTestCase):
    """The keys, which the test takes."""

    def press(self, key: str) -> None:
        """See `IKeys.press`."""
        self.pressed.append(key)

    def test_after_it_was_stopped(self) -> None:
        """After Ctrl-Z keys are read as before, in the background none; at the end the terminal is as it was."""
        main, own = pty.openpty()
        self.addCleanup(os.close, main)
        self.addCleanup(os.close, own)
        self.pressed: list[str] = []
        readers: set[Terminal] = set()
        reactor = Mock(addReader=readers.add, removeReader=readers.discard)
        terminal = Terminal(reactor, self)

        def reads_lines() -> bool:
            return bool(termios.tcgetattr(own)[3] & termios.ICANON)

        usual = termios.tcgetattr(own)
        with patch.object(Terminal, "fileno", lambda terminal: own), patch("harn.cli.dev.has_keys") as has_keys:
            has_keys.return_value = True
            terminal.open()
            self.addCleanup(terminal.close)
            self.assertEqual((reads_lines(), readers), (False, {terminal}))
            termios.tcsetattr(own, termios.TCSANOW, usual)
            continued = signal.getsignal(signal.SIGCONT)
            assert callable(continued)
            continued(signal.SIGCONT, None)
            self.assertFalse(reads_lines())
            os.write(main, b"r")
            terminal.doRead()
            has_keys.return_value = False
            continued(signal.SIGCONT, None)
            self.assertEqual((self.pressed, readers), (["r"], set()))
            has_keys.return_value = True
            terminal.close()
        self.assertEqual((reads_lines(), signal.getsignal(signal.SIGCONT)), (True, signal.SIG_DFL))
