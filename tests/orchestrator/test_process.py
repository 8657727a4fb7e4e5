"""Signals, the terminal, and the start of a daemon as its command sees it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.observability.outputs import Outputs
from harn.orchestrator import process
from harn.orchestrator.process import INTERVAL, ControllingTerminal, ISignalReceiver, Signals, StartReport, outcome
from harn.testing.server import environment

TWICE = """
import os, signal, sys
from twisted.internet import reactor
from harn.orchestrator.process import Signals

class Receiver:
    def terminate(self):
        print("told", flush=True)
        reactor.callLater(0, os.kill, os.getpid(), second)
        reactor.callLater(20, reactor.stop)

first, second = (getattr(signal, name) for name in sys.argv[1:])
signals = Signals(reactor, Receiver())
signals.install()
reactor.callWhenRunning(os.kill, os.getpid(), first)
reactor.run()
print("ended by itself")
"""

HELD_BACK = """
import os, signal, sys
from harn.orchestrator.process import Signals, hold_back

class Reactor:
    called = []
    callFromThread = called.append
    def callWhenRunning(self, function): ...

for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_DFL)  # under nohup a child ignores SIGHUP from its start
hold_back()
told = []

class Receiver:
    hang_up, upgrade, reopen = ((lambda self, name=name: told.append(name)) for name in ("hup", "usr2", "usr1"))

signals = Signals(Reactor(), Receiver(), Receiver())
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    os.kill(os.getpid(), number)
before = list(Reactor.called)
signals.install()
for function in Reactor.called:
    function()
print(before, signal.SIGTERM in blocked, signal.SIGINT in blocked, sorted(told))
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own: a signal to the test run itself could end it."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=environment()
    )


class NotingReactor:
    """Keeps the calls from threads, and the calls at its start."""

    def __init__(self) -> None:
        self.called: list[Any] = []
        self.when_running: list[Callable[[], None]] = []

    def callFromThread(self, function: Any) -> None:
        self.called.append(function)

    def callWhenRunning(self, function: Any) -> None:
        self.when_running.append(function)


@implementer(ISignalReceiver)
class Receiver(Outputs):
    """A server and its logs, which note their calls."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def hang_up(self) -> None:
        """See `ISignalReceiver.hang_up`."""
        self.told.append("hup")

    def upgrade(self) -> None:
        """See `ISignalReceiver.upgrade`."""
        self.told.append("usr2")

    def terminate(self) -> None:
        """See `ISignalReceiver.terminate`."""
        self.told.append("term")

    def reopen(self) -> None:
        """See `Outputs.reopen`."""
        self.told.append("reopen")


class SignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.before = self.handlers()
        self.reactor = NotingReactor()
        receiver = Receiver()
        self.told = receiver.told
        self.signals = Signals(self.reactor, receiver, receiver)
        self.addCleanup(self.signals.restore)

    @staticmethod
    def handlers() -> list[Any]:
        caught = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
        return [signal.getsignal(number) for number in caught]

    def send(self, number: int) -> None:
        """Call the handler that is installed for a signal, as the kernel does; then run the reactor's pending calls."""
        caught = signal.getsignal(number)
        assert callable(caught)
        caught(number, None)
        called, self.reactor.called = self.reactor.called, []
        for function in called:
            function()

    def test_hang_up_at_once(self) -> None:
        """SIGHUP and SIGUSR2 are caught from `install` on, each time; SIGTERM and SIGINT are not caught yet."""
        self.signals.install()
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
            self.send(number)
        self.assertEqual(self.told, ["reopen", "hup", "usr2", "reopen", "hup"])
        self.assertEqual(self.handlers()[3:], self.before[3:])

    def test_reopen(self) -> None:
        """SIGUSR1 reopens the log files, and does nothing else."""
        self.signals.install()
        self.send(signal.SIGUSR1)
        self.assertEqual(self.told, ["reopen"])

    def test_held_back(self) -> None:
        """A signal before `install` waits for it, and is handled then; SIGTERM is not held back."""
        done = run(HELD_BACK)
        self.assertEqual(done.stdout, "[] False False ['hup', 'usr1', 'usr1', 'usr2']\n", done.stderr)

    def test_termination(self) -> None:
        """SIGTERM and SIGINT are caught when the reactor runs."""
        self.signals.install()
        self.reactor.when_running[0]()
        self.send(signal.SIGTERM)
        self.assertEqual(self.told, ["term"])

    def test_restore(self) -> None:
        """Everything is given back to whoever had it; a reactor that runs after that changes nothing."""
        self.signals.install()
        self.reactor.when_running[0]()
        self.assertTrue(all(now != before for now, before in zip(self.handlers(), self.before, strict=True)))
        self.signals.restore()
        self.assertEqual(self.handlers(), self.before)
        self.reactor.when_running[0]()
        self.assertEqual(self.handlers(), self.before)

    def test_restore_leaves_what_came_later(self) -> None:
        """A handler that was installed by other code since then stays."""

        def other(number: int, frame: object) -> None: ...

        self.addCleanup(signal.signal, signal.SIGHUP, self.before[0])
        self.signals.install()
        signal.signal(signal.SIGHUP, other)
        self.signals.restore()
        self.assertIs(signal.getsignal(signal.SIGHUP), other)

    def test_another_thread(self) -> None:
        """Outside the main thread no signal is caught, and nothing fails."""
        thread = threading.Thread(target=self.signals.install)
        thread.start()
        thread.join()
        self.assertEqual(self.handlers(), self.before)

    def test_second_termination(self) -> None:
        """A second SIGTERM or SIGINT ends the process at once, with status 1."""
        for first, second in (("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")):
            done = run(TWICE, first, second)
            self.assertEqual((done.returncode, done.stdout), (1, "told\n"), done.stderr)


class TerminalTests(SynchronousTestCase):
    """Whether a hang-up means the end."""

    def setUp(self) -> None:
        self.answer: bool | None = True
        self.clock = Clock()
        self.terminal = ControllingTerminal(self.clock, -1)
        self.patch(self.terminal, "is_in_foreground", self.in_foreground)

    def in_foreground(self) -> bool:
        """Return the answer of the test; None: the terminal is gone."""
        if self.answer is None:
            raise OSError(5, "Input/output error")
        return self.answer

    def test_lost(self) -> None:
        """A terminal is lost when it is gone and the process was in its foreground before; not while it is there."""
        self.terminal.startService()
        self.assertFalse(self.terminal.is_lost())
        self.answer = None
        self.assertTrue(self.terminal.is_lost())
        self.clock.advance(INTERVAL)
        self.assertTrue(self.terminal.is_lost())
        self.terminal.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moved_to_the_background(self) -> None:
        """A process that was sent to the background meanwhile does not end with the terminal."""
        self.terminal.startService()
        self.answer = False
        self.clock.advance(INTERVAL)
        self.answer = None
        self.assertFalse(self.terminal.is_lost())
        self.terminal.stopService()

    def test_none(self) -> None:
        """Without a terminal, and where SIGHUP is ignored, there is nothing to follow."""
        self.patch(process, "DEVICE", "/nonexistent")
        self.assertIsNone(ControllingTerminal.of_process(self.clock))
        self.patch(process, "DEVICE", "/dev/null")
        self.patch(signal, "getsignal", lambda number: signal.SIG_IGN)
        self.assertIsNone(ControllingTerminal.of_process(self.clock))


class OutcomeTests(SynchronousTestCase):
    """A pipe between the two."""

    def setUp(self) -> None:
        self.reading, self.writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.report = StartReport(self.writing)
        self.stderr = io.StringIO()

    def outcome(self) -> tuple[int, str]:
        """Return the command's exit status, and what it says."""
        return outcome(self.reading, "twistd.log", self.stderr), self.stderr.getvalue()

    def test_ready(self) -> None:
        """A server that is ready is a success, at once, whatever it says later."""
        self.report.ready()
        self.report.failed("too late")
        self.report.ready()
        self.assertEqual(self.outcome(), (0, ""))

    def test_failed(self) -> None:
        """Each reason is a line, up to the end of the process; no reason can look like a success."""
        self.report.failed("harn.toml:1: no\nharn.toml:2: no \0ready\n\udc80")
        os.close(self.writing)
        said = "error: harn.toml:1: no\nerror: harn.toml:2: no ready\nerror: \\udc80\n"
        self.assertEqual(self.outcome(), (1, said))

    def test_gone(self) -> None:
        """A daemon that ends without a report is a failure, and its log is named; closed standard error is ignored."""
        os.close(self.writing)
        self.assertEqual(outcome(self.reading, "twistd.log", None), 1)
        self.assertEqual(self.outcome(), (1, "error: the server ended before it was ready; see twistd.log\n"))

    def test_nobody_reads(self) -> None:
        """A command that was interrupted does not disturb the server."""
        reading, writing = os.pipe()
        os.close(reading)
        report = StartReport(writing)
        report.failed("no")
        report.ready()
        os.close(self.writing)
