"""
A generation: everything that serves one accepted manifest. Put together whole, off to the side, and never changed.

It holds no secret values and no parent: dropping the last reference to it frees it without the cycle collector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from harn.connectors.gate import Gate
from harn.connectors.interfaces import IConnector, IEarlyReceiver, IReceiver, Normalized, NormalizedEvent
from harn.connectors.receivers import SignedConnector
from harn.manifest.model import RolloutSpec
from harn.model.exchange import InboundRequest
from harn.reload.inputs import Inputs
from harn.reload.pin import Pin
from harn.reload.targets import GenerationTargets
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.reconcile import Plan
from harn.triggers.routing import Ramp, Route
from harn.vm.interfaces import IInterpreter


@frozen(kw_only=True, eq=False)
class RunningConnector:
    """
    A connector of one trigger, and the gate before what it starts itself.

    :ivar verify: of a receiver, its method; requests go straight to it. So does ``normalize``. None for others.
    :ivar check_headers: of a receiver that refuses requests before their body is read, its method.
    :ivar always_claim: the provider's own key is claimed where the trigger names none.
    :ivar final_headers: header lines of answers that sending again would not change; each ends in CRLF.
    :ivar example: makes an event such as its provider sends, with its body; None where it cannot.
    """

    trigger_id: str
    connector: IConnector
    gate: Gate
    authentication: str
    verify: Callable[[InboundRequest, float], None] | None = None
    normalize: Callable[[InboundRequest], Normalized] | None = None
    check_headers: Callable[[Mapping[str, str]], None] | None = None
    always_claim: bool = False
    final_headers: bytes = b""
    example: Callable[[], NormalizedEvent] | None = None

    @classmethod
    def of(cls, trigger_id: str, connector: IConnector, gate: Gate, authentication: str) -> RunningConnector:
        """Put a connector behind its gate."""
        if not IReceiver.providedBy(connector):
            return cls(trigger_id=trigger_id, connector=connector, gate=gate, authentication=authentication)
        return cls(
            trigger_id=trigger_id,
            connector=connector,
            gate=gate,
            authentication=authentication,
            verify=connector.verify,
            normalize=connector.normalize,
            check_headers=connector.check_headers if IEarlyReceiver.providedBy(connector) else None,
            always_claim=bool(getattr(connector, "always_claim", False)),
            final_headers=connector.final_headers if isinstance(connector, SignedConnector) else b"",
            example=connector.example if isinstance(connector, SignedConnector) else None,
        )

    @property
    def takes_requests(self) -> bool:
        """Whether it is a receiver."""
        return self.verify is not None


@frozen(kw_only=True, eq=False)
class Generation:
    """
    Everything that serves one accepted manifest.

    :ivar number: from 1; never goes back.
    :ivar interpreter: held for the generation itself, beside what its bindings hold.
    :ivar targets: where its deliveries go.
    :ivar definitions: those of the manifest. ``bindings``: those in force, an earlier version where a ramp was aborted.
    :ivar connectors: one for each trigger; each held once.
    :ivar ramps: of the triggers whose deliveries two versions share.
    :ivar since: when it was adopted (seconds, Unix).
    :ivar recalled: the earlier generation whose content it is; None when it was read from files.
    :ivar pin: of a recalled one: the files that it replaced.
    :ivar reason: why it was adopted; empty where the request gave no reason.
    """

    number: int
    inputs: Inputs
    interpreter: Shared[IInterpreter]
    targets: GenerationTargets
    definitions: Mapping[str, Definition]
    bindings: dict[str, BindingVersion]
    connectors: dict[str, Shared[RunningConnector]]
    routes: dict[str, Route]
    tree: Any
    source: str
    actor: str
    since: float
    ramps: Mapping[str, Ramp] = field(factory=dict)
    recalled: int | None = None
    pin: Pin | None = None
    reason: str = ""

    @property
    def digest(self) -> str:
        """The digest of all its inputs."""
        return self.inputs.digest


@frozen(kw_only=True)
class Prepared:
    """The result of the stages up to ``resolve``: enough to describe what a reload would do."""

    inputs: Inputs
    interpreter: Shared[IInterpreter]
    definitions: Mapping[str, Definition]
    plan: Plan


@frozen(kw_only=True, eq=False)
class Candidate:
    """
    The next generation, ready to be adopted, and what adopting it replaces.

    :ivar plan: the changes to the bindings. ``numbered``: ids of those that get a new version number; at a start the
        others keep the number that is in the store.
    :ivar fresh: connectors that are new in it: their gates open. ``replaced``: connectors that it releases.
    :ivar ended: live binding versions that are not in it.
    :ivar reinterpreted: bindings, new and unchanged ones, that run in its interpreter from now on.
    :ivar rollouts: the rollout of each ramp that begins with it, by trigger id.
    :ivar alert_secrets: values that sending its alerts needs, by reference.
    """

    generation: Generation
    plan: Plan
    numbered: tuple[str, ...]
    fresh: tuple[Shared[RunningConnector], ...]
    replaced: tuple[Shared[RunningConnector], ...]
    ended: tuple[BindingVersion, ...]
    reinterpreted: tuple[BindingVersion, ...]
    rollouts: Mapping[str, RolloutSpec] = field(factory=dict)
    alert_secrets: Mapping[str, bytes] = field(factory=dict, repr=False)
