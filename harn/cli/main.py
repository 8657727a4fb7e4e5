"""
The command ``harn``: its groups, and the form of every failure: ``error: ...`` on stderr, and exit 1.

So end failures of the system, too: an output that is full, a directory that was removed. Only where the reader of the
output has gone, as in ``... | head``, the command ends without a message, as other programs do.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

import harn
from harn.cli.commands import HARN, ORCHESTRATOR, SECTIONS, CommandEntry
from harn.cli.output import describe, print_error, warn
from harn.errors import HarnError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

READER_GONE = 128 + signal.SIGPIPE
"""
The exit status of a command whose output has no reader any more: that of a program which SIGPIPE ended in a shell.
"""


class LazyGroup(click.Group):
    """
    A group that imports a subcommand's module only when that subcommand is called.

    :ivar places: by the subcommand's name.
    """

    def __init__(self, *args: Any, places: Mapping[str, CommandEntry], **more: Any) -> None:
        super().__init__(*args, **more)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of their places."""
        return list(self.places)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """
        Find the subcommand that the first of ``args`` names.

        :raises click.UsageError: there is none; says which one was meant, perhaps.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as wrong:
            meant = get_close_matches(args[0], self.places, n=1)
            if not meant:
                raise
            raise click.UsageError(f"{wrong.message} Did you mean {meant[0]!r}?", ctx) from wrong

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the subcommands with their summaries, section by section."""
        for section in SECTIONS:
            rows = [(name, place.summary) for name, place in self.places.items() if place.section == section]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the subcommands and options that a shell completes."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=place.summary)
            for name, place in self.places.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class Harn(LazyGroup):
    """The outermost group."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the command line; what it prints itself, such as help, may lose its reader."""
        try:
            return super().make_context(*args, **options)
        except BrokenPipeError as gone:
            raise click.exceptions.Exit(READER_GONE) from gone

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run a command; an exception of harn's or of the system becomes a message.

        :raises click.ClickException: with the message.
        """
        try:
            return super().invoke(ctx)
        except HarnError as error:
            raise CommandFailed(str(error)) from error
        except BrokenPipeError as gone:
            raise click.exceptions.Exit(READER_GONE) from gone
        except OSError as error:
            raise CommandFailed(describe(error)) from error

    def main(  # type: ignore[override] # click's overloads tell apart what it returns
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any
    ) -> Any:
        """Run the command line and end the process; its status does not depend on what can be printed."""
        if "_HARN_COMPLETE" in os.environ:
            from harn.cli.bash_completion import register

            register()
        if not options.pop("standalone_mode", True):
            return super().main(args, prog_name, standalone_mode=False, **options)
        try:
            status = super().main(args, prog_name, standalone_mode=False, **options)
        except click.ClickException as wrong:
            with suppress(OSError):
                wrong.show()
            status = wrong.exit_code
        except click.Abort:
            warn("Aborted!")
            status = 1
        except OSError as error:  # from output without a command: help, the version
            print_error(describe(error))
            status = 1
        sys.exit(status or 0)


class CommandFailed(click.ClickException):
    """A command that failed: exit 1."""

    def show(self, file: Any = None) -> None:
        """Print ``error: ...`` on stderr."""
        print_error(self.message)


@click.group(cls=Harn, places=HARN, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(harn.__version__, "-V", "--version", message="harn %(version)s")
def cli() -> None:
    """Serve triggers: events in, handlers called, nothing lost."""


@click.group(cls=LazyGroup, places=ORCHESTRATOR)
def orchestrator() -> None:
    """Run the orchestrator, and talk to one that runs."""


@click.group()
def manifest() -> None:
    """Help with writing a manifest."""


@manifest.command()
def schema() -> None:
    """Print the JSON schema of a manifest, for editors."""
    from harn.connectors.catalog import Catalog
    from harn.manifest.json_schema import manifest_json_schema

    click.echo(json.dumps(manifest_json_schema(Catalog.discover().providers), indent=2))


def main() -> None:
    """Run the command with the arguments of the process, and end it."""
    try:
        cli(prog_name="harn")
    finally:
        silence_broken_output()


def silence_broken_output() -> None:
    """Point an output that cannot be written to at ``/dev/null``: Python's own end would print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())
