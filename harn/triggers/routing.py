"""
Routes and ramps: which binding version takes what arrives on a path.

A route is one path, one binding version (two while it is on a ramp), one receiver. It is made complete with its
generation and never changed; a request that leased it may finish on it after any number of reloads.

On a ramp a modified version of a trigger takes a share of the new deliveries, and the previous version takes the rest.
Which of the two takes an event depends on the event's key and the share alone, so equal keys go to one version, on
every server and after every restart; and a share that rises only ever moves keys from the stable version to the fresh.
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
"""As many as a float holds exactly: a bucket is never rounded up to 1."""


def bucket(trigger_id: str, key: str) -> float:
    """Return the place of ``key`` among all keys of the trigger: from 0 to below 1, evenly spread, always the same."""
    digest = blake2b(trigger_id.encode("utf-8"), digest_size=8)
    digest.update(b"\x00" + key.encode("utf-8", "surrogatepass"))
    return (int.from_bytes(digest.digest(), "big") >> (64 - _BITS)) / 2.0**_BITS


@define(eq=False)
class Ramp:
    """
    Two versions in force at the same time.

    :ivar stable: the previous version.
    :ivar fresh: the modified one, the newest of its trigger.
    :ivar share: of the new deliveries, how many the fresh version takes (0 to 1). To be changed on the reactor thread;
        read on any.
    """

    stable: BindingVersion = field(on_setattr=setters.frozen)
    fresh: BindingVersion = field(on_setattr=setters.frozen)
    share: float = field(validator=[ge(0.0), le(1.0)])

    def __attrs_post_init__(self) -> None:
        if self.stable is self.fresh or self.stable.id != self.fresh.id:
            raise ValueError(f"{self.stable.key} and {self.fresh.key} are not two versions of one trigger")

    @property
    def versions(self) -> tuple[BindingVersion, BindingVersion]:
        """Both, the stable one first."""
        return self.stable, self.fresh

    def choose(self, key: str) -> BindingVersion:
        """Return the version that takes the events of ``key``; see `harn.triggers.matching.Rules.key_of`."""
        return self.fresh if bucket(self.fresh.id, key) < self.share else self.stable


def share_of(binding: BindingVersion, ramps: Mapping[str, Ramp]) -> float:
    """
    Return the share (0 to 1) of its trigger's new deliveries that a version takes.

    :param ramps: those that run, by trigger id.
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
    :ivar binding: the newest version of its trigger.
    :ivar receiver: the shared connector (an ``IReceiver``) that verifies and normalizes.
    :ivar ramp: chooses between ``binding``, which is its fresh version, and the previous one; None if ``binding``
        receives all deliveries.
    :ivar others: the routes of further triggers on the same path, ordered by id; they verify requests alike.
    :ivar responds: a trigger of the path gives the answer itself.
    :ivar received: what is emitted for each request, of this trigger.
    :ivar authentication: ``public`` (the provider's signature decides) or ``credentials`` (the server's own, checked
        first).
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
        """Lease binding and receiver for one request; on a ramp both versions, since the choice is made later."""
        self.binding.lease()
        if self.ramp is not None:
            self.ramp.stable.lease()
        self.receiver.retain()
        if self.others:
            for other in self.others:
                other.lease()

    def release(self) -> None:
        """Release all leases of the request. Its deliveries hold their own."""
        if self.others:
            for other in self.others:
                other.release()
        self.receiver.release()
        if self.ramp is not None:
            self.ramp.stable.release()
        self.binding.release()


def shared_route(routes: Iterable[Route]) -> Route | None:
    """Return one route of all the triggers of a path; None without any."""
    first, *others = sorted(routes, key=lambda route: route.binding.id) or (None,)
    return evolve(first, others=tuple(others)) if first is not None and others else first
