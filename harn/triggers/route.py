"""
The route of a binding: one path, one binding version (two while it is on a ramp), one receiver.

A route is made complete with its generation and never changed; a request that leased it may finish on it after any
number of reloads.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from harn.triggers.binding import BindingVersion
from harn.triggers.pool import Shared
from harn.triggers.ramp import Ramp


@frozen(kw_only=True, eq=False)
class Route:
    """
    :ivar binding: the newest version of its trigger.
    :ivar receiver: the shared connector (an ``IReceiver``) that verifies and normalizes.
    :ivar ramp: chooses between ``binding``, which is its fresh version, and the one before; None if ``binding``
        receives all deliveries.
    :ivar authentication: ``public`` (the provider's signature decides) or ``credentials`` (the server's own, checked
        first).
    """

    path: str
    binding: BindingVersion
    receiver: Shared[Any]
    authentication: str
    ramp: Ramp | None = None

    def lease(self) -> None:
        """Lease binding and receiver for one request; on a ramp both versions, since the choice is made later."""
        self.binding.lease()
        if self.ramp is not None:
            self.ramp.stable.lease()
        self.receiver.retain()

    def release(self) -> None:
        """Release all leases of the request. Its deliveries hold their own."""
        self.receiver.release()
        if self.ramp is not None:
            self.ramp.stable.release()
        self.binding.release()
