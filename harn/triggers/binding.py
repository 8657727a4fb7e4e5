"""
One binding version: a trigger in force as of one definition, and the leases that keep it.

The definition never changes. A reload may replace the destination without a new version; leases and counts go up and
down. Everything happens on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, auto
from typing import Any, Protocol

from msgspec import Struct

from harn.manifest.model import TriggerSpec
from harn.model.exchange import Endings, OutgoingDelivery, Running
from harn.model.references import FunctionReference, binding_key
from harn.triggers.matching import Rules
from harn.wire import digest_value

REGISTERING, ACTIVE, DRAINING, TERMINATED = "registering", "active", "draining", "terminated"
"""The states that users see; several stages of a version show as draining."""


class Stage(IntEnum):
    """The stage of a binding version. `MOVES` holds the legal moves."""

    REGISTERING = auto()
    """Made, and in no live generation yet."""
    ACTIVE = auto()
    """In force: it takes new deliveries."""
    DRAINING = auto()
    """It takes no new deliveries, and runs those that it accepted."""
    CLOSED = auto()
    """It begins nothing more: its other deliveries run on the newest version, or become dead letters without one."""
    CANCELLED = auto()
    """An operator cancelled its drain: its deliveries become dead letters; late ones are as on a closed version."""
    TERMINATED = auto()
    """Nothing needs it any more."""


MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.REGISTERING: frozenset((Stage.ACTIVE, Stage.DRAINING)),
    Stage.ACTIVE: frozenset((Stage.DRAINING,)),
    Stage.DRAINING: frozenset((Stage.CLOSED, Stage.CANCELLED, Stage.TERMINATED)),
    Stage.CLOSED: frozenset((Stage.CANCELLED, Stage.TERMINATED)),
    Stage.CANCELLED: frozenset((Stage.TERMINATED,)),
    Stage.TERMINATED: frozenset(),
}
"""The legal moves, by the stage before."""
_MAY_DRAIN = frozenset(stage for stage, following in MOVES.items() if Stage.DRAINING in following)
_SHOWN = {Stage.REGISTERING: REGISTERING, Stage.ACTIVE: ACTIVE, Stage.TERMINATED: TERMINATED}


class Definition(Struct, frozen=True, kw_only=True):
    """
    The definition of a binding version: its spec, and the code of its handler and predicate.

    :ivar fingerprint: digest of all of it; equal fingerprints are one version.
    :ivar handler_code: source digest of the handler's module and the local modules it imports.
    """

    spec: TriggerSpec
    spec_fingerprint: str
    handler_code: str
    predicate_code: str | None
    fingerprint: str

    @classmethod
    def of(cls, spec: TriggerSpec, spec_fingerprint: str, handler_code: str, predicate_code: str | None) -> Definition:
        """Put a definition together."""
        return cls(
            spec=spec,
            spec_fingerprint=spec_fingerprint,
            handler_code=handler_code,
            predicate_code=predicate_code,
            fingerprint=digest_value([spec_fingerprint, handler_code, predicate_code]),
        )


class Target(Protocol):
    """A destination as versions and attempts hold it; `harn.destinations` makes it. Its last release lets it end."""

    def retain(self) -> Target:
        """Hold it once more."""

    def release(self) -> None:
        """Release it once."""

    def run(self, delivery: OutgoingDelivery, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """
        Begin one attempt; see `harn.destinations.interfaces.IDestination.begin`.

        :param attempt: what ``endings`` gets back when it has ended, perhaps before this returns.
        """


class IDrainRegistry(Protocol):
    """The part of `harn.triggers.registry.Registry` that a draining version calls."""

    def check(self, binding: BindingVersion) -> None:
        """End a draining version if nothing needs it any more."""


class BindingVersion:
    """
    ``id@vN``.

    :ivar stage: changed only by `become`, which sets the flags below too.
    :ivar state: the one that users see.

    :ivar in_flight: leases held: requests whose headers are in, and deliveries accepted and not settled or waiting.
    :ivar registry: ends it once nothing needs it; None while it does not drain.
    :ivar is_closed: it begins nothing more.
    :ivar is_cancelled: an operator cancelled its drain.
    """

    __slots__ = (
        "__weakref__",
        "bundle_id",
        "definition",
        "destination",
        "draining_since",
        "handler_kind",
        "id",
        "in_flight",
        "is_cancelled",
        "is_closed",
        "key",
        "predicate",
        "registry",
        "rules",
        "spec",
        "stage",
        "state",
        "version",
    )

    def __init__(self, definition: Definition, version: int, bundle_id: str) -> None:
        spec = definition.spec
        self.definition = definition
        self.spec: TriggerSpec = spec
        self.id: str = spec.id
        self.version = version
        self.bundle_id = bundle_id
        self.key = binding_key(spec.id, version)
        self.rules = Rules.of(spec)
        self.handler_kind: str = spec.handler_kind
        self.predicate: FunctionReference | None = spec.predicate_reference()
        self.stage = Stage.REGISTERING
        self.state = REGISTERING
        self.destination: Target | None = None
        self.in_flight = 0
        self.is_closed = self.is_cancelled = False
        self.draining_since: float | None = None
        self.registry: IDrainRegistry | None = None

    def become(self, stage: Stage) -> None:
        """
        Enter a stage; nothing happens where it is that already.

        :raises AssertionError: `MOVES` does not allow it.
        """
        if stage is self.stage:
            return
        if stage not in MOVES[self.stage]:
            raise AssertionError(f"{self.key}: a version must not become {stage.name} after {self.stage.name}")
        self.stage = stage
        self.state = _SHOWN.get(stage, DRAINING)
        self.is_closed = stage in (Stage.CLOSED, Stage.CANCELLED)
        self.is_cancelled = stage is Stage.CANCELLED

    def drain(self, registry: IDrainRegistry, now: float) -> None:
        """
        Refuse new deliveries from now on (seconds, Unix); ``registry`` ends it once nothing needs it.

        :raises AssertionError: `MOVES` does not allow it.
        """
        drain_all((self,), registry, now)

    def lease(self, count: int = 1) -> None:
        """Hold the version ``count`` times more."""
        self.in_flight += count

    def release(self, count: int = 1) -> None:
        """Release ``count`` leases; the last one of a draining version ends it."""
        self.in_flight -= count
        if self.in_flight <= 0 and self.state == DRAINING and self.registry is not None:
            self.registry.check(self)

    def __repr__(self) -> str:
        return f"<BindingVersion {self.key} {self.state} in_flight={self.in_flight}>"


def drain_all(bindings: Iterable[BindingVersion], registry: IDrainRegistry, now: float) -> None:
    """
    Drain versions, as `BindingVersion.drain` says: of ten thousand in one step, without a call for each.

    :raises AssertionError: `MOVES` does not allow it.
    """
    stage, may_drain = Stage.DRAINING, _MAY_DRAIN
    for binding in bindings:
        if binding.stage not in may_drain:
            binding.become(stage)  # nothing, or the error
        binding.stage = stage
        binding.state = DRAINING
        binding.draining_since = now
        binding.registry = registry
