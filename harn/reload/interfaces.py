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
    """The table in which requests find their route; provided by the listener's site."""

    def build(routes: Mapping[str, Route]) -> Any:
        """
        Build a tree of these routes without serving it.

        :param routes: the routes by path.
        :raises StageFailed: the tree cannot be built (stage ``swap``).
        """

    def swap(tree: Any, generation: int) -> None:
        """Serve ``tree`` from now on. Cannot fail."""


class IReloader(Interface):
    """Reloads, and describes the live generation."""

    generation: int = Attribute("The number of the live generation; 0 before the first.")
    etag: str = Attribute("Made of the live generation's number and digest.")

    def reload(request: ReloadRequest) -> Deferred[ReloadReport]:
        """
        Reload, and return a report, also of a failure.

        :raises PreconditionFailed: ``if_match`` names another generation than the live one.
        :raises ShuttingDown: the server is shutting down.
        """

    def describe() -> Deferred[LiveGenerationInfo]:
        """Return a description of the live generation; reads the files to find drift."""


class RolloutStatus(Struct, frozen=True):
    """The probation and the ramps that are under way; ``probation`` is None if none is."""

    probation: ProbationInfo | None = None
    ramps: tuple[RampInfo, ...] = ()


class IRollouts(Interface):
    """The rollouts of the live generation; provided by `harn.rollout.rollouts.Rollouts`."""

    def status() -> RolloutStatus:
        """Return the rollouts that are under way."""

    def note(generation: Generation, request: ReloadRequest) -> Deferred[None]:
        """
        Write durably that a generation serves, in one unit with the rollouts that are under way.

        :return: fires when the unit is in the store; fails if the first try fails, though the write is tried again.
        """

    def catch_up() -> Awaitable[None]:
        """Read the rollouts again after the previous program wrote them last and stopped deciding them."""


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
    The failure of the servers on a store to agree on a generation, which none of them has adopted.

    :ivar servers: the answer of each server.
    """

    def __init__(
        self, stage: str, message: str, problems: Sequence[Problem], servers: Sequence[ServerAdoption]
    ) -> None:
        super().__init__(stage, message, problems)
        self.servers = tuple(servers)


class IDecision(Interface):
    """The decision of several servers whether all of them adopt a candidate."""

    follows: int | None = Attribute("The number of the generation that another server proposes; None of one's own.")
    splits: bool = Attribute("Whether this server alone adopts it, though others serve on its store.")
    reunites: bool = Attribute("Whether all adopt it even if it is what this server serves: another has split before.")

    def agree(candidate: Candidate, seconds: float) -> Awaitable[None]:
        """
        Wait until the servers have decided to adopt the candidate; from then on each server must adopt it.

        :param seconds: the time limit for the votes of the other servers.
        :raises StageFailed: the servers decided against it, and none adopts it.
        """

    def outcome() -> Awaitable[Sequence[ServerAdoption]]:
        """Return the status of each server after the decision."""

    def end() -> None:
        """Called once after success or failure: other servers may reload from now on."""


class IOtherServers(Interface):
    """The other servers on the store; provided by `harn.servers.agreement.Agreement`."""

    def serving() -> Awaitable[Sequence[str]]:
        """
        Read from the store, and return, the names of the servers that serve and that this server does not replace.

        :raises EventLogUnavailable: the store cannot be read.
        """

    def settled() -> Awaitable[None]:
        """Wait until the servers that began to start before this one serve or have ended."""

    def begin(request: ReloadRequest) -> Coroutine[Deferred[Any], Any, IDecision | None]:
        """
        Begin a reload to which other servers must agree; return None if there are no others.

        :raises StageFailed: another server reloads, or the store cannot be read or written.
        """


@implementer(IOtherServers)
class NoOtherServers(Struct, frozen=True):
    """The empty set of other servers, for a server that is alone on its store."""

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
        """Write the record and the state file before the caller is answered; return a warning for each failure."""


class DryRun(Struct, frozen=True, kw_only=True):
    """
    The parts of the generation that a dry run would adopt, from which its plan is made.

    :ivar live: the live generation; None before the first.
    :ivar rollouts: the rollouts of the modified triggers that would ramp, by trigger id.
    :ivar versions: gives the numbers of new binding versions.
    :ivar started_with: the settings of the server's first generation; None before that.
    """

    live: Generation | None
    prepared: Prepared
    rollouts: Mapping[str, RolloutSpec]
    request: ReloadRequest
    versions: VersionNumbers
    started_with: OrchestratorSettings | None


class IPlanner(Interface):
    """Makes the plans of dry runs; provided by `harn.history.plan.Planner`."""

    def describe(dry_run: DryRun) -> Awaitable[ReloadPlan]:
        """Return the JSON value ``plan`` of a dry run's report."""


class ReloadBegan(Struct, frozen=True, eq=False):
    """The beginning of a reload that may change something."""

    request: ReloadRequest


class Adopted(Struct, frozen=True, eq=False):
    """
    The adopt of a generation, which has become live in this turn of the reactor.

    :ivar previous: the number of the previous generation; 0 for none.
    :ivar waits: True for a server's first generation if it does not serve before `FirstServes`.
    """

    candidate: Candidate
    request: ReloadRequest
    previous: int
    waits: bool = False


class FirstServes(Struct, frozen=True, eq=False):
    """A server's first generation begins to serve: its port is open, or was taken over from the previous program."""


class ReloadEnded(Struct, frozen=True, eq=False):
    """The end of a reload that `ReloadBegan` announced; ``report`` is None if it was refused or cancelled."""

    report: ReloadReport | None


class PinEnded(Struct, frozen=True, eq=False):
    """The end of a pin after a requested reload: the watcher and a restart adopt the files again; see `Pin`."""


class ReloadsClosed(Struct, frozen=True, eq=False):
    """The end of all reloads and rollouts, because the server ends or another program replaces it."""
