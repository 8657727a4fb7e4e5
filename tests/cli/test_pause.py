"""What ``pause`` and ``resume`` take, and say."""

from __future__ import annotations

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.pause import describe_paused, describe_resumed, pause, resume
from harn.dispatch.pause_operations import Paused, Resumed, parse_rate


class CommandTests(SynchronousTestCase):
    def test_usage(self) -> None:
        """One trigger or all of them; a duration and a rate are checked before anything is asked of a server."""
        for command, arguments, said in (
            (pause, [], "name a TRIGGER"),
            (pause, ["gh", "--all"], "name a TRIGGER"),
            (pause, ["gh", "--for", "soon"], "for: must be a duration"),
            (pause, ["gh", "--for", "0s"], "longer than nothing"),
            (resume, ["gh", "--rate", "fast"], "rate: must be a rate"),
            (resume, ["--all", "--rate", "0/s"], "must be a rate"),
            (resume, ["--all", "--rate", "1e-310/h"], "must be a rate"),
        ):
            result = CliRunner().invoke(command, arguments)
            self.assertEqual(result.exit_code, 2, result.output)
            self.assertIn(said, result.output)

    def test_rates(self) -> None:
        """A rate is a number with a unit of time."""
        self.assertEqual([parse_rate(text) for text in ("10/s", "90/m", "2")], [10.0, 1.5, 2.0])

    def test_what_is_said(self) -> None:
        """The trigger or the server, and until when; a trigger that stays paused with the server says so."""
        paused = Paused(trigger_id="gh", paused=True, until="2026-01-02T03:04:05.000Z")
        self.assertEqual(describe_paused(paused), "gh: paused until 2026-01-02T03:04:05.000Z")
        self.assertIn("the server: paused", describe_paused(Paused(trigger_id=None, paused=True, until=None)))
        cases = [
            describe_resumed(Resumed(trigger_id="gh", paused=still, was_paused=was))
            for still, was in ((False, True), (False, False), (True, True))
        ]
        self.assertEqual([case.partition(";")[0] for case in cases][:2], ["gh: resumed", "gh: was not paused"])
        self.assertIn("still paused", cases[2])
