"""The terminal in whose foreground a server was started."""

from __future__ import annotations

import signal

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.orchestrator import terminal
from harn.orchestrator.terminal import INTERVAL, Terminal


class TerminalTests(SynchronousTestCase):
    """Whether a hang-up means the end."""

    def setUp(self) -> None:
        self.answer: bool | None = True
        self.clock = Clock()
        self.terminal = Terminal(self.clock, self.in_foreground)

    def in_foreground(self) -> bool:
        """Return what the test says; None: the terminal is gone."""
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
        self.patch(terminal, "DEVICE", "/nonexistent")
        self.assertIsNone(Terminal.of_process(self.clock))
        self.patch(terminal, "DEVICE", "/dev/null")
        self.patch(signal, "getsignal", lambda number: signal.SIG_IGN)
        self.assertIsNone(Terminal.of_process(self.clock))
