"""Options that several commands have, from the one definition in `harn.options`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from harn.cli.arguments import Seconds
from harn.options import MANIFEST, STATE_DIR, Option

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def flag(option: Option) -> Decorator:
    """
    Make a click option that passes on what was typed, and nothing when it was not.

    The environment and the default are left to `ServeOptions.from_values` (or `told`): one place decides who wins.
    """
    shown = f"{option.help} [{option.env}]"
    if option.default is not None and not option.is_switch:
        shown += f" (default: {option.default})"
    names = [f"--{name}" for name in (option.name, *option.aliases)]
    if option.is_switch:
        return click.option(*names, option.key, is_flag=True, default=None, help=shown)
    return click.option(*names, option.key, default=None, metavar=option.metavar, help=shown)


def with_flags(*options: Option) -> Decorator:
    """Return a command several of them, in order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = flag(option)(command)
        return command

    return decorate


def with_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command ``--config`` and ``--state-dir``."""
    return with_flags(MANIFEST, STATE_DIR)(command)


def with_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command what it takes to reach a server."""
    return with_server_within(120.0)(command)


def with_server_within(seconds: float) -> Decorator:
    """Return a command what it takes to reach a server that may need so many seconds."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(
            (
                click.option(
                    "--admin-url", metavar="URL", help="Where the server is, if not where its state file says."
                ),
                click.option("--cacert", metavar="PATH", help="Certificates (PEM) to trust instead of the system's."),
                click.option("--insecure", is_flag=True, help="Accept any certificate."),
                click.option(
                    "--timeout",
                    type=Seconds(),
                    default=seconds,
                    show_default=True,
                    metavar="SECONDS",
                    help="How long to wait for the answer.",
                ),
            )
        ):
            command = option(command)
        return command

    return decorate


def with_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
