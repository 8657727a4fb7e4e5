"""
One binding version: a trigger in force as of one definition, and the leases that keep it.

The definition never changes. What a reload may re-point without a new version is the interpreter; what goes up and
down are the leases and the counts. Everything happens on the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from harn.manifest.model import TriggerSpec
from harn.model.identifiers import binding_key
from harn.model.references import FunctionReference
from harn.triggers.matching import Rules
from harn.triggers.pool import Shared
from harn.vm.interfaces import IInterpreter
from harn.wire import digest_value

REGISTERING = "registering"
ACTIVE = "active"
DRAINING = "draining"
TERMINATED = "terminated"


@frozen(kw_only=True)
class Definition:
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


class BindingVersion:
    """
    ``id@vN``: registering, active, draining, terminated.

    :ivar in_flight: leases held: requests whose headers are in, and deliveries accepted and not settled or waiting.
    :ivar stored: of the leases, how many belong to deliveries that are in the store alone.
    :ivar moved: its drain ran out of time: what it has not begun goes to the newest version.
    :ivar abandoned: it was moved on when its trigger was gone: what it has not begun goes to the dead letters.
    :ivar cancelled: an operator cancelled its drain: what it held goes to the dead letters.
    """

    __slots__ = (
        "__weakref__",
        "abandoned",
        "bundle_id",
        "cancelled",
        "definition",
        "draining_since",
        "handler",
        "id",
        "in_flight",
        "interpreter",
        "key",
        "moved",
        "on_idle",
        "predicate",
        "rules",
        "spec",
        "state",
        "stored",
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
        self.handler: FunctionReference = spec.handler_reference()
        self.predicate: FunctionReference | None = spec.predicate_reference()
        self.state = REGISTERING
        self.interpreter: Shared[IInterpreter] | None = None
        self.in_flight = 0
        self.stored = 0
        self.moved = self.abandoned = self.cancelled = False
        self.draining_since: float | None = None
        self.on_idle: Callable[[BindingVersion], None] | None = None

    def lease(self, count: int = 1) -> None:
        """Hold the version ``count`` times more."""
        self.in_flight += count

    def release(self, count: int = 1) -> None:
        """Release ``count`` leases; the last one of a draining version ends it."""
        self.in_flight -= count
        if self.in_flight <= 0 and self.state == DRAINING and self.on_idle is not None:
            self.on_idle(self)

    def __repr__(self) -> str:
        return f"<BindingVersion {self.key} {self.state} in_flight={self.in_flight}>"
