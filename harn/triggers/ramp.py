"""
A ramp: a modified version of a trigger takes a share of the new deliveries, and the version before takes the rest.

Which of the two takes an event depends on the event's key and the share alone, so equal keys go to one version, on
every server and after every restart; and a share that rises only ever moves keys from the stable version to the fresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from attrs import define, field
from attrs.setters import frozen
from attrs.validators import ge, le

from harn.triggers.binding import ACTIVE, BindingVersion

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
    Two versions in force at once.

    :ivar stable: the version before; ``fresh``: the modified one, the newest of its trigger.
    :ivar share: of the new deliveries, how many the fresh version takes (0 to 1). To be changed on the reactor thread;
        read on any.
    """

    stable: BindingVersion = field(on_setattr=frozen)
    fresh: BindingVersion = field(on_setattr=frozen)
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
