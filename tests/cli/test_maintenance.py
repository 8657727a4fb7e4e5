"""``check``: what it prints of what was found."""

from __future__ import annotations

import json

import click
from click.testing import CliRunner
from msgspec import to_builtins
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.maintenance import show_checked
from harn.model.problem import Problem
from harn.orchestrator.assemble import Checked
from harn.reload.results import ProblemInfo

WRONG = Problem(file="harn.toml", line=3, where="triggers[0] (gh): id", message="is empty", hint="give it one")


class ShowTests(SynchronousTestCase):
    """The result of a check."""

    def shown(self, found: Checked, *, as_json: bool = False) -> tuple[int, str, str]:
        """Return exit status, stdout and stderr."""

        @click.command()
        @click.pass_context
        def command(context: click.Context) -> None:
            context.exit(show_checked(found, as_json))

        result = CliRunner().invoke(command, [])
        return result.exit_code, result.stdout, result.stderr

    def test_ok(self) -> None:
        """A manifest in order: exit 0, and how much was checked."""
        self.assertEqual(self.shown(Checked((), 2, 1)), (0, "ok: 2 triggers, 1 module\n", ""))

    def test_problems(self) -> None:
        """Each problem is a line on stderr that begins with ``error:`` and its place: exit 1."""
        elsewhere = replace(WRONG, line=9, where="triggers[1]: id")
        other = Problem(file="harn.toml", message="is odd")
        said = "error: harn.toml:3: triggers[0] (gh): id: is empty; give it one\n"
        said += "error: harn.toml:9: triggers[1]: id: is empty; give it one\n"
        found = Checked((WRONG, elsewhere, other), 0, 0)
        self.assertEqual(self.shown(found), (1, "", said + "error: harn.toml: is odd\n"))

    def test_warnings(self) -> None:
        """A warning is a line on stderr, and no problem; ``--json`` has it on stdout."""
        found = Checked((), 2, 1, ("secret a/b: a line end around its value was taken off",))
        said = "warning: secret a/b: a line end around its value was taken off\n"
        self.assertEqual(self.shown(found), (0, "ok: 2 triggers, 1 module\n", said))
        status, out, err = self.shown(found, as_json=True)
        self.assertEqual((status, json.loads(out)["warnings"], err), (0, list(found.warnings), ""))

    def test_json(self) -> None:
        """``--json`` gives both on stdout, with the same exit status."""
        status, out, _ = self.shown(Checked((WRONG,), 1, 0), as_json=True)
        self.assertEqual((status, json.loads(out)["problems"]), (1, [to_builtins(ProblemInfo.of(WRONG))]))
        status, out, _ = self.shown(Checked((), 1, 2), as_json=True)
        self.assertEqual((status, json.loads(out)["status"], json.loads(out)["modules"]), (0, "ok", 2))
