"""Named keys as a feature of a server; see `harn.server.Server`."""

from __future__ import annotations

from harn.api_keys.operations import OPERATIONS
from harn.api_keys.service import NamedKeys
from harn.auth.keys import KeyRing
from harn.server import Server


def install(server: Server) -> None:
    """Add the ring of keys, which the listener checks requests against, and its operations."""
    keys = server.add(NamedKeys(server.wall, server.store.checkpoints, server.add(KeyRing())))
    server.operations.add(keys, *OPERATIONS)
