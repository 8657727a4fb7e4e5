"""
One binding version: a trigger as defined by one manifest, with the count of its leases.

The definition never changes. A reload may replace the destination without a new version; the number of leases
changes with each request and delivery. All methods are called on the reactor thread.
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
    """It begins no more deliveries: those not begun run on the newest version; if there is none, they become dead
    letters."""
    CANCELLED = auto()
    """An operator cancelled its drain: its deliveries become dead letters. Later ones are handled as for `CLOSED`."""
    TERMINATED = auto()
    """It has no leases, and no delivery that waits for a retry can run on it."""


MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.REGISTERING: frozenset((Stage.ACTIVE, Stage.DRAINING)),
    Stage.ACTIVE: frozenset((Stage.DRAINING,)),
    Stage.DRAINING: frozenset((Stage.CLOSED, Stage.CANCELLED, Stage.TERMINATED)),
    Stage.CLOSED: frozenset((Stage.CANCELLED, Stage.TERMINATED)),
    Stage.CANCELLED: frozenset((Stage.TERMINATED,)),
    Stage.TERMINATED: frozenset(),
}
"""The stages that may follow each stage."""
_MAY_DRAIN = frozenset(stage for stage, following in MOVES.items() if Stage.DRAINING in following)
_SHOWN = {Stage.REGISTERING: REGISTERING, Stage.ACTIVE: ACTIVE, Stage.TERMINATED: TERMINATED}


class Definition(Struct, frozen=True, kw_only=True):
    """
    The definition of a binding version: its spec, and the code of its handler and predicate.

    :ivar spec: the trigger's entry of the manifest, checked.
    :ivar spec_fingerprint: digest of ``spec``.
    :ivar handler_code: source digest of the handler's module and the local modules that it imports.
    :ivar predicate_code: the same for the predicate; None without one.
    :ivar fingerprint: digest of the three above; definitions with equal fingerprints are one version.
    """

    spec: TriggerSpec
    spec_fingerprint: str
    handler_code: str
    predicate_code: str | None
    fingerprint: str

    @classmethod
    def of(cls, spec: TriggerSpec, spec_fingerprint: str, handler_code: str, predicate_code: str | None) -> Definition:
        """Return a definition with its fingerprint."""
        return cls(
            spec=spec,
            spec_fingerprint=spec_fingerprint,
            handler_code=handler_code,
            predicate_code=predicate_code,
            fingerprint=digest_value([spec_fingerprint, handler_code, predicate_code]),
        )


class Target(Protocol):
    """
    A destination, with the number of its references: versions and attempts hold them.

    `harn.destinations` makes it. It may be closed after the last reference is released.
    """

    def retain(self) -> Target:
        """Add a reference."""

    def release(self) -> None:
        """Release a reference."""

    def run(self, delivery: OutgoingDelivery, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """
        Begin one attempt; see `harn.destinations.interfaces.IDestination.begin`.

        :param attempt: passed back to ``endings`` when the attempt has ended, perhaps before this method returns.
        """


class IDrainRegistry(Protocol):
    """The part of `harn.triggers.registry.Registry` that a draining version calls."""

    def check(self, binding: BindingVersion) -> None:
        """End a draining version if it has no leases and no waiting retry can run on it alone."""


class BindingVersion:
    """
    A binding version, ``id@vN``.

    :ivar stage: the stage, changed by `become` and `drain_all` alone, which set the states and flags below too.
    :ivar state: the state that users see.
    :ivar in_flight: the number of leases: one for each request whose headers have arrived, and for each accepted
        delivery that is neither settled nor waiting for a retry.
    :ivar draining_since: when the drain began (seconds, Unix); None before.
    :ivar registry: the registry that ends the version after its drain; None unless it drains.
    :ivar is_closed: whether it begins no more deliveries.
    :ivar is_cancelled: whether an operator cancelled its drain.
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
        Enter a stage. Do nothing if the version is in that stage already.

        :raises AssertionError: `MOVES` does not allow the change.
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
        Enter the stage `Stage.DRAINING`: take no new deliveries.

        :param registry: ends the version when its drain is complete.
        :param now: the time at which the drain begins (seconds, Unix).
        :raises AssertionError: `MOVES` does not allow the change.
        """
        drain_all((self,), registry, now)

    def lease(self, count: int = 1) -> None:
        """Add ``count`` leases."""
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
    Drain versions, as `BindingVersion.drain` does, without a call for each: there may be ten thousand.

    :raises AssertionError: `MOVES` does not allow the change of one of them.
    """
    stage, may_drain = Stage.DRAINING, _MAY_DRAIN
    for binding in bindings:
        if binding.stage not in may_drain:
            binding.become(stage)  # does nothing if it drains already, else raises
        binding.stage = stage
        binding.state = DRAINING
        binding.draining_since = now
        binding.registry = registry
