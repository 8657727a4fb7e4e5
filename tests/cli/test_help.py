"""The command line as a whole: names, short forms, help and its summaries, short options."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.commands import HARN, LONGEST, ORCHESTRATOR, SECTIONS
from harn.cli.main import cli


def commands(words: tuple[str, ...] = (), command: click.Command = cli) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with the words that call it; groups, too."""
    yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from commands((*words, name), inner)


class HelpTests(SynchronousTestCase):
    """What a stranger sees first."""

    def run_harn(self, *words: str) -> Result:
        """Run ``harn``."""
        return CliRunner().invoke(cli, list(words), prog_name="harn")

    def test_every_command_is_there(self) -> None:
        """Each place leads to a command, which has a help text."""
        found = dict(commands())
        for name in (*HARN, *(f"orchestrator {each}" for each in ORCHESTRATOR)):
            self.assertTrue(found[name].help, name)

    def test_short_forms(self) -> None:
        """``harn X`` is ``harn orchestrator X``, for each X: the same object."""
        found = dict(commands())
        for name in ORCHESTRATOR:
            self.assertIs(found[name], found[f"orchestrator {name}"], name)

    def test_summaries(self) -> None:
        """Each summary is one short phrase without a full stop, in a section."""
        for name, place in HARN.items():
            self.assertTrue(0 < len(place.summary) <= LONGEST, name)
            self.assertFalse(place.summary.endswith("."), name)
            self.assertIn(place.section, SECTIONS, name)

    def test_sections(self) -> None:
        """The help lists every command once, below the heading of its section."""
        said = self.run_harn("--help").stdout
        heads = [line for line in said.splitlines() if line.endswith(":") and not line.startswith(" ")]
        self.assertEqual(heads, ["Options:", *(f"{section}:" for section in SECTIONS)])
        for name, place in HARN.items():
            self.assertRegex(said, rf"\n  {name} +{place.summary}\n")

    def test_h_is_help(self) -> None:
        """``-h`` is ``--help`` everywhere."""
        for words in ((), ("orchestrator",), ("reload",), ("orchestrator", "fire"), ("manifest", "schema")):
            short, long = self.run_harn(*words, "-h"), self.run_harn(*words, "--help")
            self.assertEqual((short.exit_code, short.stdout), (0, long.stdout), words)
            self.assertIn("Usage: harn", short.stdout)

    def test_meant(self) -> None:
        """A command that is nearly right is named, in the short form as well."""
        for words in (("relod",), ("orchestrator", "relod")):
            wrong = self.run_harn(*words)
            self.assertEqual(wrong.exit_code, 2)
            self.assertIn("Did you mean 'reload'?", wrong.stderr)

    def test_short_options(self) -> None:
        """No command has one option name twice, and a letter means the same option in all of them."""
        meanings: dict[str, set[str]] = {}
        for words, command in commands():
            names = [name for each in command.params if isinstance(each, click.Option) for name in each.opts]
            self.assertEqual(len(names), len(set(names)), words)
            for each in command.params:
                letters = [name for name in each.opts if len(name) == 2 and name.startswith("-")]
                for letter in letters:
                    meanings.setdefault(letter, set()).add(next(name for name in each.opts if name.startswith("--")))
        self.assertEqual({letter: found for letter, found in meanings.items() if len(found) > 1}, {})
        self.assertLessEqual({"-c", "-s", "-j", "-n", "-t", "-k", "-y", "-f", "-V"}, meanings.keys())
