"""
A generation: everything that serves one accepted manifest. Put together whole, off to the side, and never changed.

It holds no secret values and no parent: dropping the last reference to it frees it without the cycle collector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import field, frozen

from harn.manifest.model import RolloutSpec
from harn.reload.connections import RunningConnector
from harn.reload.inputs import Inputs
from harn.reload.targets import GenerationTargets
from harn.triggers.binding import BindingVersion, Definition
from harn.triggers.pool import Shared
from harn.triggers.reconcile import Plan
from harn.triggers.routing import Ramp, Route
from harn.vm.interfaces import IInterpreter

PIN_CHECKPOINT = "replaced"
"""The name under which the store keeps a pin."""


@frozen
class Pin:
    """
    The pin: after a rollback or an automatic revert the server stays on the generation that it went back to.

    The files differ from that generation then, on purpose. As long as they read as they did at that moment, neither the
    watcher nor a restart adopts them. A reload that is asked for ends the pin, and so does any change of these files.

    :ivar files: digests, by path, of manifest and modules as they read when the earlier content replaced them.
    """

    files: Mapping[str, str]

    def holds(self, content: Mapping[str, str]) -> bool:
        """Return whether files with these digests (by path) still read as they did when the pin was set."""
        return all(content.get(path) == digest for path, digest in self.files.items())

    def to_checkpoint(self) -> dict[str, str]:
        """Return the form in which the store keeps it."""
        return dict(self.files)

    @classmethod
    def from_checkpoint(cls, kept: Any) -> Pin | None:
        """
        Read the form that `to_checkpoint` returns; None for an empty one.

        :raises msgspec.ValidationError: it has another shape.
        """
        files = msgspec.convert(kept, type=dict[str, str])
        return cls(files) if files else None


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
    :ivar new_connectors: their gates open. ``replaced_connectors``: those that it releases.
    :ivar ended: live binding versions that are not in it.
    :ivar reinterpreted: bindings, new and unchanged ones, that run in its interpreter from now on.
    :ivar rollouts: the rollout of each ramp that begins with it, by trigger id.
    :ivar alert_secrets: values that sending its alerts needs, by reference.
    """

    generation: Generation
    plan: Plan
    numbered: tuple[str, ...]
    new_connectors: tuple[Shared[RunningConnector], ...]
    replaced_connectors: tuple[Shared[RunningConnector], ...]
    ended: tuple[BindingVersion, ...]
    reinterpreted: tuple[BindingVersion, ...]
    rollouts: Mapping[str, RolloutSpec] = field(factory=dict)
    alert_secrets: Mapping[str, bytes] = field(factory=dict, repr=False)
