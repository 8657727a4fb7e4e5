"""
Routes and ramps: which binding version takes the events of a request.

A route has a path, a binding version (two during a ramp) and a receiver. It is made with its generation and never
changed. A request that holds a lease on it uses it to its end, whatever reloads happen meanwhile.

During a ramp, a modified version of a trigger takes a share of the new deliveries, and the previous version takes the
rest. The choice depends on the event's dedupe key and the share alone: events of one key go to one version, on every
server and after every restart. When the share rises, keys move only from the stable version to the fresh one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from attrs import define, evolve, field, frozen, setters
from attrs.validators import ge, le

from harn.lifecycle import Received
from harn.triggers.binding import ACTIVE, BindingVersion
from harn.triggers.pool import Shared

NO_RAMPS: Mapping[str, Ramp] = {}

_BITS = 53
"""Bits of a bucket: a float holds so many exactly, so a bucket is never rounded up to 1."""


def bucket(trigger_id: str, key: str) -> float:
    """Return a hash of ``key`` and the trigger id as a number from 0 to below 1, evenly distributed."""
    digest = blake2b(trigger_id.encode("utf-8"), digest_size=8)
    digest.update(b"\x00" + key.encode("utf-8", "surrogatepass"))
    return (int.from_bytes(digest.digest(), "big") >> (64 - _BITS)) / 2.0**_BITS


@define(eq=False)
class Ramp:
    """
    Two versions of one trigger that both take new deliveries.

    :ivar stable: the previous version.
    :ivar fresh: the modified version, the newest of the trigger.
    :ivar share: the share (0 to 1) of new deliveries that the fresh version takes. It is changed on the reactor thread
        and read on any thread.
    """

    stable: BindingVersion = field(on_setattr=setters.frozen)
    fresh: BindingVersion = field(on_setattr=setters.frozen)
    share: float = field(validator=[ge(0.0), le(1.0)])

    def __attrs_post_init__(self) -> None:
        if self.stable is self.fresh or self.stable.id != self.fresh.id:
            raise ValueError(f"{self.stable.key} and {self.fresh.key} are not two versions of one trigger")

    @property
    def versions(self) -> tuple[BindingVersion, BindingVersion]:
        """Return both versions, the stable one first."""
        return self.stable, self.fresh

    def choose(self, key: str) -> BindingVersion:
        """Return the version that takes events with this key; see `harn.triggers.matching.Rules.key_of`."""
        return self.fresh if bucket(self.fresh.id, key) < self.share else self.stable


def share_of(binding: BindingVersion, ramps: Mapping[str, Ramp]) -> float:
    """
    Return the share (0 to 1) of the trigger's new deliveries that a version takes.

    :param ramps: the current ramps, by trigger id.
    """
    ramp = ramps.get(binding.id)
    if ramp is not None and binding is ramp.fresh:
        return ramp.share
    if ramp is not None and binding is ramp.stable:
        return 1.0 - ramp.share
    return 1.0 if binding.state == ACTIVE else 0.0


@frozen(kw_only=True, eq=False)
class Route:
    """
    The route of requests to one path.

    :ivar path: the path of the requests.
    :ivar binding: the newest version of the trigger.
    :ivar receiver: the shared connector (an ``IReceiver``) that verifies and normalizes requests.
    :ivar authentication: ``public`` (the provider's signature authenticates the sender) or ``credentials`` (the
        server's own credentials do, and are checked first).
    :ivar ramp: the ramp whose fresh version is ``binding``; None if ``binding`` takes all deliveries.
    :ivar others: the routes of further triggers on the same path, ordered by id; they verify requests in the same way.
    :ivar responds: whether a trigger of the path has ``respond``, and so determines the response.
    :ivar received: the lifecycle event emitted for each request, for this trigger.
    """

    path: str
    binding: BindingVersion
    receiver: Shared[Any]
    authentication: str
    ramp: Ramp | None = None
    others: tuple[Route, ...] = ()
    responds: bool = field(init=False)
    received: Received = field(init=False)

    @received.default
    def _received(self) -> Received:
        binding = self.binding
        return Received(binding.id, binding.spec.provider, binding.key if self.ramp is None else None)

    @responds.default
    def _responds(self) -> bool:
        if self.binding.spec.respond is not None:
            return True
        if self.ramp is not None and self.ramp.stable.spec.respond is not None:
            return True
        return any(other.responds for other in self.others)

    @property
    def members(self) -> tuple[Route, ...]:
        """Return the route of each trigger on the path, this one first."""
        return (evolve(self, others=()), *self.others) if self.others else (self,)

    def lease(self) -> None:
        """
        Acquire leases on the binding and the receiver for one request.

        During a ramp both versions are leased, since one is chosen only when the event is known.
        """
        self.binding.lease()
        if self.ramp is not None:
            self.ramp.stable.lease()
        self.receiver.retain()
        if self.others:
            for other in self.others:
                other.lease()

    def release(self) -> None:
        """Release all leases of a request. Its deliveries hold leases of their own."""
        if self.others:
            for other in self.others:
                other.release()
        self.receiver.release()
        if self.ramp is not None:
            self.ramp.stable.release()
        self.binding.release()


def shared_route(routes: Iterable[Route]) -> Route | None:
    """Return one route for all triggers of a path, from the route of each; None if there are none."""
    first, *others = sorted(routes, key=lambda route: route.binding.id) or (None,)
    return evolve(first, others=tuple(others)) if first is not None and others else first
