"""Named keys as a feature of a server; see `harn.server.Server`."""

from __future__ import annotations

from harn.api_keys.operations import OPERATIONS
from harn.api_keys.service import NamedKeys
from harn.auth.keys import KEYS, KeyRing
from harn.lifecycle import Fenced, StoreChanged
from harn.server import Server


def install(server: Server) -> None:
    """Add the ring of keys, which the listener checks requests against, and its operations."""
    keys = server.add(NamedKeys(server.wall, server.store.checkpoints, server.add(KeyRing())))
    server.lifecycle.subscribe(StoreChanged, lambda event: keys.follow() if event.concerns(KEYS) else None)
    server.lifecycle.subscribe(Fenced, lambda event: keys.follow())
    server.operations.add(keys, *OPERATIONS)
