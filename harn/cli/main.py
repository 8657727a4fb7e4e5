"""The command ``harn``: its groups, and how every failure of ours ends: ``error: ...`` on stderr, and exit 1."""

from __future__ import annotations

from typing import Any

import click

import harn
from harn.cli.lazy import LazyGroup
from harn.errors import HarnError


class Harn(LazyGroup):
    """The outermost group."""

    def invoke(self, ctx: click.Context) -> Any:
        """
        Run a command; what it raises of ours becomes a message.

        :raises click.ClickException: with the message.
        """
        try:
            return super().invoke(ctx)
        except HarnError as error:
            raise CommandFailed(str(error)) from error


class CommandFailed(click.ClickException):
    """A command that could not do what it was told: exit 1."""

    def show(self, file: Any = None) -> None:
        """Print ``error: ...`` on stderr."""
        click.echo(f"error: {self.message}", err=True)


@click.group(
    cls=Harn,
    places={
        "orchestrator": "harn.cli.main:orchestrator",
        "manifest": "harn.cli.manifest:manifest",
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
        "rollback": "harn.cli.rollback:rollback",
        "confirm": "harn.cli.rollback:confirm",
        "history": "harn.cli.history:history",
        "show": "harn.cli.history:show",
        "diff": "harn.cli.history:diff",
        "ramp": "harn.cli.ramp:ramp",
        "drains": "harn.cli.drains:drains",
        "inspect": "harn.cli.inspect:inspect",
        "events": "harn.cli.events:events",
        "check": "harn.cli.check:check",
        "fire": "harn.cli.fire:fire",
        "recover": "harn.cli.recover:recover",
    },
)
def orchestrator() -> None:
    """Run the orchestrator, and talk to one that runs."""


def main() -> None:
    """Run the command with the arguments of the process, and end it."""
    cli(prog_name="harn")
