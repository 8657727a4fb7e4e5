"""
Interfaces between reloading and the layers above it, in both directions, and the lifecycle events of reloads (see
`harn.lifecycle`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from harn.errors import StageFailed
from harn.manifest.model import RolloutSpec
from harn.manifest.settings import OrchestratorSettings
from harn.model.problem import Problem
from harn.reload.generation import Candidate, Generation, Prepared, VersionNumbers
from harn.reload.report import Finished, ReloadReport, ReloadRequest
from harn.reload.results import LiveGenerationInfo, ProbationInfo, RampInfo, ReloadPlan, ServerAdoption
from harn.store.generations import IGenerations
from harn.triggers.routing import Route


class IRouteTable(Interface):
    """Where requests find their route; provided by the listener's site."""

    def build(routes: Mapping[str, Route]) -> Any:
        """
        Build a tree of these routes, by path, off to the side.

        :raises StageFailed: stage ``swap``: it cannot be built.
        """

    def swap(tree: Any, generation: int) -> None:
        """Serve ``tree`` from now on. Cannot fail."""


class IReloader(Interface):
    """Reloads, and describes what is live."""

    generation: int = Attribute("The number of the live generation; 0 before the first.")
    etag: str = Attribute("Made of the live generation's number and digest.")

    def reload(request: ReloadRequest) -> Deferred[ReloadReport]:
        """
        Reload; a failure is a report, too.

        :raises PreconditionFailed: ``if_match`` names another generation than the live one.
        :raises ShuttingDown: the server is going down.
        """

    def describe() -> Deferred[LiveGenerationInfo]:
        """Return the live generation; reads the files, since ``drift`` depends on them."""


class RolloutStatus(Struct, frozen=True):
    """The probation and the ramps that are under way; ``probation`` is None where there is none."""

    probation: ProbationInfo | None = None
    ramps: tuple[RampInfo, ...] = ()


class IRollouts(Interface):
    """The rollouts of the live generation; provided by `harn.rollout.rollouts.Rollouts`."""

    def status() -> RolloutStatus:
        """Return the rollouts that are under way."""

    def note(generation: Generation, request: ReloadRequest) -> Deferred[None]:
        """
        Write durably that a generation serves, in one unit with the rollouts that are under way.

        :return: fires when that is in the store; fails if the first try fails, though it is tried again after that.
        """

    def catch_up() -> Awaitable[None]:
        """Read again the rollouts that the previous program has written, now that it has stopped deciding them."""


@implementer(IRollouts)
class NoRollouts(Struct, frozen=True):
    """No rollouts: a generation is adopted without probation or ramps."""

    generations: IGenerations

    def status(self) -> RolloutStatus:
        """See `IRollouts.status`."""
        return RolloutStatus()

    def note(self, generation: Generation, request: ReloadRequest) -> Deferred[None]:
        """See `IRollouts.note`."""
        return self.generations.adopted(generation.number, generation.since, {})

    async def catch_up(self) -> None:
        """See `IRollouts.catch_up`."""


class NotAgreed(StageFailed):
    """
    The servers on the store did not agree to adopt a generation, so that none has.

    :ivar servers: each of them.
    """

    def __init__(
        self, stage: str, message: str, problems: Sequence[Problem], servers: Sequence[ServerAdoption]
    ) -> None:
        super().__init__(stage, message, problems)
        self.servers = tuple(servers)


class IDecision(Interface):
    """Whether a candidate is adopted, which several servers decide together."""

    follows: int | None = Attribute("The number of the generation that another server proposes; None of one's own.")
    splits: bool = Attribute("Whether this server alone adopts it, though others serve on its store.")
    reunites: bool = Attribute("Whether all adopt it even if it is what this server serves: another has split before.")

    def agree(candidate: Candidate, seconds: float) -> Awaitable[None]:
        """
        Wait for the decision that all adopt the candidate; from then on each must.

        :param seconds: that the votes of the others may take.
        :raises StageFailed: none adopts it.
        """

    def outcome() -> Awaitable[Sequence[ServerAdoption]]:
        """Return how each server stands after the decision."""

    def end() -> None:
        """Called once, however it ended: other servers may reload from now on."""


class IOtherServers(Interface):
    """The other servers on the store; provided by `harn.servers.agreement.Agreement`."""

    def serving() -> Awaitable[Sequence[str]]:
        """
        Look, and return the names of those that serve, and that this server does not replace.

        :raises EventLogUnavailable: the store cannot be read.
        """

    def settled() -> Awaitable[None]:
        """Wait until those that began to start before this server serve, or are gone."""

    def begin(request: ReloadRequest) -> Coroutine[Deferred[Any], Any, IDecision | None]:
        """
        Begin a reload, which other servers must agree to; return None where there are none.

        :raises StageFailed: another server reloads, or the store cannot be read or written.
        """


@implementer(IOtherServers)
class NoOtherServers(Struct, frozen=True):
    """A server that is alone on its store."""

    async def serving(self) -> Sequence[str]:
        """See `IOtherServers.serving`."""
        return ()

    async def settled(self) -> None:
        """See `IOtherServers.settled`."""

    async def begin(self, request: ReloadRequest) -> IDecision | None:
        """See `IOtherServers.begin`."""
        return None


class IReloadPublisher(Interface):
    """Publishes reloads; provided by `harn.orchestrator.publish.Publisher`."""

    def publish(finished: Finished) -> Deferred[list[str]]:
        """Write record and state file before the caller is answered; return a warning for each failure."""


class DryRun(Struct, frozen=True, kw_only=True):
    """
    Everything that a dry run would adopt, not yet put together.

    :ivar rollouts: of the modified triggers that would ramp.
    :ivar started_with: the settings of the server's first generation, once there was one.
    """

    live: Generation | None
    prepared: Prepared
    rollouts: Mapping[str, RolloutSpec]
    request: ReloadRequest
    versions: VersionNumbers
    started_with: OrchestratorSettings | None


class IPlanner(Interface):
    """Makes the details of dry runs; provided by `harn.history.plan.Planner`."""

    def describe(dry_run: DryRun) -> Awaitable[ReloadPlan]:
        """Return the JSON value ``plan`` of a dry run's report."""


class ReloadBegan(Struct, frozen=True, eq=False):
    """A reload that may change something runs from now on."""

    request: ReloadRequest


class Adopted(Struct, frozen=True, eq=False):
    """
    A generation is live, since this turn of the reactor.

    :ivar previous: the number of the previous one; 0 for none.
    :ivar waits: it is a server's first, and serves from `FirstServes` on.
    """

    candidate: Candidate
    request: ReloadRequest
    previous: int
    waits: bool = False


class FirstServes(Struct, frozen=True, eq=False):
    """A server's first generation serves: its port is open, or was taken over from the previous program."""


class ReloadEnded(Struct, frozen=True, eq=False):
    """A reload that `ReloadBegan` announced has ended; ``report`` is None when it was refused or cut off."""

    report: ReloadReport | None


class PinEnded(Struct, frozen=True, eq=False):
    """The watcher and a restart adopt the files again, since a reload was asked for; see `Pin`."""


class ReloadsClosed(Struct, frozen=True, eq=False):
    """Nothing more is adopted or decided: the server ends, or another program replaces it."""
