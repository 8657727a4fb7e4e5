"""Deliveries in hand, as a feature of a server."""

from __future__ import annotations

from harn.deliveries.listing import DeliveryReader
from harn.deliveries.operations import OPERATIONS, DeliveryService
from harn.reload.coordinator import Coordinator
from harn.server import Server


def install(server: Server) -> None:
    """Add the operations on deliveries."""
    reader = server.add(
        DeliveryReader(clock=server.reactor, wall=server.wall, lists=server.store.lists, in_thread=server.in_thread)
    )
    server.operations.add(DeliveryService(reader=reader, coordinator=server[Coordinator]), *OPERATIONS)
