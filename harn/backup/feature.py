"""Backups of a running server."""

from __future__ import annotations

from harn.backup.backups import OPERATIONS, Backups
from harn.server import Server


def install(server: Server) -> None:
    """Add the maker of backups, and its operation."""
    backups = server.add(Backups(server.reactor, server.wall, server.store.location, server.options.state_dir))
    server.background.add(backups)
    server.operations.add(backups, *OPERATIONS)
