"""Backups of a running server."""

from __future__ import annotations

from harn.backup.backups import OPERATIONS, Backups
from harn.server import Server


def install(server: Server) -> None:
    """Add the maker of backups, and its operation."""
    database = server.store.location if server.store.backend == "sqlite" else None
    backups = server.add(Backups(server.reactor, server.wall, database, server.options.state_dir))
    server.background.add(backups)
    server.operations.add(backups, *OPERATIONS)
