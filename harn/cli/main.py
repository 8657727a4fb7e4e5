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
from typing import Any

import click

import harn
from harn.cli.output import describe, print_error, warn
from harn.errors import HarnError

READER_GONE = 128 + signal.SIGPIPE
"""The exit status of a command whose output has lost its reader, as a shell has it of a program that SIGPIPE ended."""


class LazyGroup(click.Group):
    """
    A group that imports a subcommand's module only when that subcommand is called, or listed.

    :ivar places: by the subcommand's name, the ``module:attribute`` that holds it.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **more: Any) -> None:
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

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
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


@click.group(
    cls=Harn,
    places={
        "orchestrator": "harn.cli.main:orchestrator",
        "manifest": "harn.cli.main:manifest",
        "connector": "harn.cli.connector:connector",
    },
)
@click.version_option(harn.__version__, message="harn %(version)s")
def cli() -> None:
    """Serve triggers: events in, handlers called, nothing lost."""


@click.group(
    cls=LazyGroup,
    places={
        "serve": "harn.cli.serve:serve",
        "reload": "harn.cli.reload:reload",
        "plan": "harn.cli.reload:plan",
        "rollback": "harn.cli.generations:rollback",
        "confirm": "harn.cli.generations:confirm",
        "history": "harn.cli.generations:history",
        "show": "harn.cli.generations:show",
        "diff": "harn.cli.generations:diff",
        "ramp": "harn.cli.generations:ramp",
        "drains": "harn.cli.unfinished:drains",
        "inspect": "harn.cli.inspect:inspect",
        "stats": "harn.cli.stats:stats",
        "top": "harn.cli.stats:top",
        "events": "harn.cli.events:events",
        "check": "harn.cli.maintenance:check",
        "deliveries": "harn.cli.deliveries:deliveries",
        "delivery": "harn.cli.deliveries:delivery",
        "dlq": "harn.cli.deliveries:dlq",
        "export": "harn.cli.fixtures:export",
        "import": "harn.cli.fixtures:import_",
        "replay": "harn.cli.changes:replay",
        "cancel": "harn.cli.changes:cancel",
        "discard": "harn.cli.changes:discard",
        "jobs": "harn.cli.jobs:jobs",
        "fire": "harn.cli.fixtures:fire",
        "alerts": "harn.cli.alerts:alerts",
        "pause": "harn.cli.holds:pause",
        "resume": "harn.cli.holds:resume",
        "circuits": "harn.cli.holds:circuits",
        "recover": "harn.cli.unfinished:recover",
        "backup": "harn.cli.maintenance:backup",
        "restore": "harn.cli.maintenance:restore",
        "compact": "harn.cli.maintenance:compact",
    },
)
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
