"""A click group that imports a subcommand's module only when that subcommand is called for, or listed."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """
    Finds its subcommands by name.

    :ivar places: by the subcommand's name, the ``module:attribute`` that holds it.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names, in the order of their places."""
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
