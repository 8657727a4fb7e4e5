"""
Where requests for a binding enter: one path, one binding version, one receiver.

A route is made whole with its generation and never changed; whoever takes a lease on it may finish on it after any
number of reloads.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from harn.triggers.binding import BindingVersion
from harn.triggers.pool import Shared


@frozen(kw_only=True, eq=False)
class Route:
    """
    :ivar receiver: the shared connector (an ``IReceiver``) that verifies and normalizes.
    :ivar authentication: ``public`` (the provider's signature decides) or ``credentials`` (ours, first).
    """

    path: str
    binding: BindingVersion
    receiver: Shared[Any]
    authentication: str

    def lease(self) -> None:
        """Hold binding and receiver for one request."""
        self.binding.lease()
        self.receiver.retain()

    def release(self) -> None:
        """Give both back. What the request's deliveries need they hold themselves."""
        self.receiver.release()
        self.binding.release()
