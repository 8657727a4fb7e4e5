"""
The reload of all servers on a store: one proposes a generation, the others prepare it from the store and vote.

What decides is in `harn.store.proposals`, within the transaction of the last vote. A server that was away when it was
decided adopts what was decided as soon as it looks again, and is not ready until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import EventLogUnavailable, GenerationUnknown, StageFailed, StoreError
from harn.reload.coordinator import Coordinator
from harn.reload.generation import SPLIT
from harn.reload.interfaces import IDecision, IOtherServers
from harn.reload.report import ReloadReport, ReloadRequest
from harn.servers.decisions import Changes, Following, Proposing, Splitting
from harn.servers.membership import Clocks, Membership
from harn.servers.votes import check_split, vote_against
from harn.store.interfaces import IStore
from harn.store.proposals import Proposal, ProposalState, Vote
from harn.store.servers import SERVING, STARTING
from harn.triggers.registry import Registry

log = Logger(namespace="harn.servers")

SOURCE = "servers"
"""The source of a reload that another server has proposed."""
AGAIN = 5.0
"""Seconds after which adopting what was decided is tried again, if it failed."""


@implementer(IOtherServers)
class Agreement:
    """
    The part of one server in the reloads of all.

    :ivar decided: the number of the generation that was decided last.
    """

    def __init__(
        self, clocks: Clocks, store: IStore, members: Membership, coordinator: Coordinator, registry: Registry
    ) -> None:
        self.clock = clocks.clock
        self.wall = clocks.wall
        self.store = store
        self.members = members
        self.coordinator = coordinator
        self.registry = registry
        self.changes = Changes(clocks.clock)
        self.decided = 0
        self.proposes = ""  # the id of the proposal of which a reload of this server waits
        self._tried: dict[str, float] = {}
        self._is_looking = self._owes_turn = False
        self.failure = ""  # why the generation that was decided last could not be adopted here

    # For reloads of this server

    async def serving(self) -> Sequence[str]:
        """See `IOtherServers.serving`."""
        return await self.members.in_status(SERVING)

    async def settled(self) -> None:
        """See `IOtherServers.settled`."""
        await self.members.settled()

    async def begin(self, request: ReloadRequest) -> IDecision | None:
        """See `IOtherServers.begin`. A server that is alone now proposes, too: another may start meanwhile."""
        if not self.store.is_shared:
            return None
        self._owes_turn = False
        try:
            holder = await self.store.servers.take_turn()
        except CancelledError:
            self.release()  # it may have been written
            raise
        except EventLogUnavailable as error:
            self.release()
            raise StageFailed("prepare", f"the other servers on the store cannot be asked: {error}") from error
        if holder != self.store.incarnation:
            name = self.members.name_of(holder)
            raise StageFailed("prepare", f"server {name} on the same store reloads; try again when that has ended")
        self.coordinator.numbers.are_known = False  # others may have given some since
        try:
            if not request.here:
                return Proposing(self, request, reunites=await self._is_split())
            return await self._begin_here(request)
        except EventLogUnavailable as error:
            self.release()
            raise StageFailed("prepare", f"the store cannot be read: {error}") from error
        except BaseException:
            self.release()
            raise

    async def _is_split(self) -> bool:
        """Return whether a server has adopted the newest generation alone."""
        newest = await self.store.generations.history(1)
        return any(SPLIT in each.summary for each in newest)

    async def _begin_here(self, request: ReloadRequest) -> IDecision:
        """
        Begin a reload of this server alone, which is one of all where there is no other.

        :raises StageFailed: others serve, and the live settings do not allow it; or there is something to adopt first.
        """
        others = await self.members.in_status(SERVING, STARTING)
        if not others:
            return Proposing(self, request)
        live = self.coordinator.current
        check_split(others, is_allowed=live is not None and live.inputs.manifest.orchestrator.reload.allow_split)
        last = await self.store.servers.proposal()
        if last is not None and last.state is ProposalState.ADOPTED and last.generation > self.coordinator.generation:
            raise StageFailed("prepare", f"generation {last.generation} was decided, and is adopted first; try again")
        return Splitting(self, request)

    @property
    def base(self) -> int:
        """The number of the last generation that this server shares with the others; 0 before the first."""
        live = self.coordinator.current
        return 0 if live is None else live.shared_number

    def release(self) -> None:
        """Release the turn to reload; where that fails, it is tried again with each look."""
        self._owes_turn = True
        self.store.servers.end_turn().addCallbacks(self._released, _looked_in_vain)

    def _released(self, _: object) -> None:
        self._owes_turn = False

    def is_current(self) -> bool:
        """Return whether this server serves the generation that was decided last."""
        return self.decided <= self.coordinator.generation or not self.coordinator.generation

    # For reloads of others

    def changed(self) -> None:
        """Called when another server may have done something with a proposal."""
        self.changes.announce()
        self.look()

    def look(self) -> None:
        """Look whether this server is asked, or has something to adopt that was decided."""
        if self._owes_turn:
            self.release()
        if self._is_looking or not self.store.is_shared or self.members.note.status != SERVING:
            return
        self._is_looking = True
        Deferred.fromCoroutine(self.look_once()).addErrback(_looked_in_vain).addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._is_looking = False

    async def look_once(self) -> None:
        """Look once; fires when what this server is asked, or has to adopt, has been dealt with."""
        proposal = await self.store.servers.proposal()
        if proposal is None or proposal.id == self.proposes:
            return
        if proposal.by == self.store.incarnation and proposal.state is ProposalState.OPEN:
            # The reload that wrote it was cut off before it was decided.
            proposal = await self.store.servers.decide(proposal.id, is_late=True)
        if proposal.state is ProposalState.ADOPTED:
            self.decided = max(self.decided, proposal.generation)
        number = str(self.store.incarnation)
        is_asked = proposal.state is ProposalState.OPEN and number in proposal.members
        if (is_asked and number not in proposal.votes) or not self.is_current():
            now = self.clock.seconds()
            if now - self._tried.get(proposal.id, float("-inf")) >= AGAIN:
                self._tried = {proposal.id: now}
                await self.follow(proposal)

    async def follow(self, proposal: Proposal) -> None:
        """Prepare the proposed generation, vote, and adopt it if that is decided."""
        request = ReloadRequest(
            source=SOURCE, actor=proposal.actor, recall=proposal.generation, reason=proposal.reason, force=True
        )
        try:
            report: ReloadReport = await self.coordinator.follow(request, Following(self, proposal))
        except GenerationUnknown as error:
            vote = Vote(server=self.members.id, why=str(error), stage="parse")
        else:
            if report.ok:
                self.failure = ""
                return
            vote = vote_against(self.members.id, report)
        log.error(
            "generation {number}, which {server} proposes, is not adopted here: {why}",
            number=proposal.generation,
            server=self.members.name_of(proposal.by),
            why=vote.why,
        )
        if proposal.state is ProposalState.ADOPTED:
            self.failure = vote.why
        with suppress(StoreError):  # decided without this server; or the store cannot be reached: it is asked again
            await self.store.servers.vote(proposal.id, vote)

    async def read(self, proposal: Proposal) -> Proposal:
        """Return a proposal as it is now."""
        found = await self.store.servers.proposal()
        return proposal if found is None or found.id != proposal.id else found


def _looked_in_vain(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("looking at what another server proposes failed", failure)
