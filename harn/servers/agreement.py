"""
The reload of all servers on a store: one proposes a generation, the others prepare it from the store and vote.

What decides is in `harn.store.proposals`, within the transaction of the last vote. A server that was away when it was
decided adopts what was decided as soon as it looks again, and is not ready until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import EventLogUnavailable, GenerationUnknown, StageFailed, StoreError
from harn.model.references import uuid7
from harn.reload.coordinator import Coordinator
from harn.reload.generation import Candidate
from harn.reload.interfaces import IDecision, IOtherServers, NotAgreed
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.results import ServerAdoption
from harn.servers.membership import Clocks, Membership
from harn.servers.votes import has_terms, not_agreed, several_serve, vote_against
from harn.store.interfaces import IStore
from harn.store.proposals import Proposal, ProposalState, Vote
from harn.store.servers import SERVING

log = Logger(namespace="harn.servers")

SOURCE = "servers"
"""The source of a reload that another server has proposed."""
PAUSE = 1.0
"""Seconds between two looks at a proposal of which nothing was announced."""
AGAIN = 5.0
"""Seconds after which adopting what was decided is tried again, if it failed."""
SHOWN = 2.0
"""Seconds that a report waits until each server shows the generation that was decided."""


class Changes:
    """Waits for what other servers do with a proposal."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._changed: Deferred[None] = Deferred()

    def announce(self) -> None:
        """Wake all that wait."""
        changed, self._changed = self._changed, Deferred()
        changed.callback(None)

    async def wait(self, seconds: float = PAUSE) -> None:
        """Wait for the next announcement, at most for so many seconds."""
        waiting: Deferred[None] = Deferred()
        self._changed.addCallback(lambda _: None if waiting.called else waiting.callback(None))
        with suppress(TimeoutError):
            await waiting.addTimeout(seconds, self._clock)


@implementer(IOtherServers)
class Agreement:
    """
    The part of one server in the reloads of all.

    :ivar decided: the number of the generation that was decided last.
    """

    def __init__(self, clocks: Clocks, store: IStore, members: Membership, coordinator: Coordinator) -> None:
        self.clock = clocks.clock
        self.wall = clocks.wall
        self.store = store
        self.members = members
        self.coordinator = coordinator
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
        return Proposing(self, request)

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
            # It was written, but the answer was lost, and the reload has failed for that.
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


@implementer(IDecision)
@define(eq=False)
class Proposing:
    """The decision about a generation that this server proposes."""

    agreement: Agreement
    request: ReloadRequest
    follows: int | None = None
    proposal: Proposal | None = field(default=None, init=False)

    async def agree(self, candidate: Candidate, seconds: float) -> None:
        """See `IDecision.agree`."""
        ends_at = self.agreement.clock.seconds() + seconds
        try:
            self.proposal = proposal = await self._decided(await self._propose(candidate), ends_at)
        except StoreError as error:  # whatever was written, it is dropped or followed with the next look
            raise StageFailed("prepare", f"the other servers on the store were not asked in full: {error}") from error
        if proposal.state is ProposalState.DROPPED:
            raise self._not_agreed(proposal)

    async def _propose(self, candidate: Candidate) -> Proposal:
        agreement = self.agreement
        agreement.proposes = f"reload_{uuid7(agreement.wall.seconds())}"
        proposal: Proposal = await agreement.store.servers.propose(
            Proposal(
                id=agreement.proposes,
                by=0,
                generation=candidate.generation.number,
                base=agreement.coordinator.generation,
                versions=len(candidate.numbered),
                actor=self.request.actor,
                reason=self.request.reason,
                is_alone=has_terms(candidate, self.request),
            )
        )
        return proposal

    async def _decided(self, proposal: Proposal, ends_at: float) -> Proposal:
        """Wait until a proposal is decided; at ``ends_at`` (the clock's seconds) for no further vote."""
        clock = self.agreement.clock
        while proposal.state is ProposalState.OPEN:
            await self.agreement.changes.wait(min(PAUSE, max(0.0, ends_at - clock.seconds())))
            proposal = await self._decide(proposal, is_late=clock.seconds() >= ends_at)
        return proposal

    def _not_agreed(self, proposal: Proposal) -> StageFailed:
        agreement = self.agreement
        if proposal.is_alone and proposal.members:
            return several_serve(proposal)
        own = ServerAdoption(id=agreement.members.id, generation=agreement.coordinator.generation, status="unchanged")
        if proposal.by != agreement.store.incarnation:
            why = "this server was silent for too long, so that the others dropped what it proposed"
            return NotAgreed("prepare", why, (), [own])
        return not_agreed(proposal, own, [each.incarnation for each in agreement.members.others])

    async def _decide(self, proposal: Proposal, *, is_late: bool) -> Proposal:
        """Decide, or, while that cannot be written, find out what was decided: it must not stay unknown."""
        while True:
            try:
                return await self.agreement.store.servers.decide(proposal.id, is_late=is_late)
            except EventLogUnavailable:
                await deferLater(self.agreement.clock, PAUSE)
            try:
                found = await self.agreement.read(proposal)
                if found.state is not ProposalState.OPEN:
                    return found
            except EventLogUnavailable:
                continue

    def end(self) -> None:
        """See `IDecision.end`."""
        self.agreement.proposes = ""
        self.agreement.release()

    async def outcome(self) -> Sequence[ServerAdoption]:
        """See `IDecision.outcome`: wait for a while until each shows it."""
        agreement, proposal = self.agreement, self.proposal
        if proposal is None or not proposal.members:
            return ()
        ends_at = agreement.clock.seconds() + SHOWN
        shown: dict[str, int] = {}
        asked: list[str] = []
        with suppress(EventLogUnavailable, CancelledError):  # it is adopted all the same, and its report is published
            while True:
                shown = {str(each.incarnation): each.note.generation for each in (await agreement.members.look())[0]}
                asked = [each for each in proposal.members if each in shown]
                if all(shown[each] >= proposal.generation for each in asked) or agreement.clock.seconds() >= ends_at:
                    break
                await deferLater(agreement.clock, 0.05)
        own = ServerAdoption(id=agreement.members.id, generation=proposal.generation, status="adopted")
        return (
            own,
            *(
                ServerAdoption(
                    id=proposal.members[each],
                    generation=shown[each],
                    status="adopted" if shown[each] >= proposal.generation else "pending",
                )
                for each in asked
            ),
        )


@implementer(IDecision)
@define(eq=False)
class Following:
    """The decision about a generation that another server proposes."""

    agreement: Agreement
    proposal: Proposal

    @property
    def follows(self) -> int:
        """See `IDecision.follows`."""
        return self.proposal.generation

    async def agree(self, candidate: Candidate, seconds: float) -> None:
        """See `IDecision.agree`."""
        agreement, proposal = self.agreement, self.proposal
        live = agreement.coordinator.generation
        is_open = proposal.state is ProposalState.OPEN
        if is_open and (len(candidate.numbered) != proposal.versions or live != proposal.base):
            if live < proposal.base and agreement.failure:
                raise StageFailed(
                    "prepare",
                    f"generation {live} serves here, since this server could not adopt generation {proposal.base}:"
                    f" {agreement.failure}; repair that, or end this server",
                )
            raise StageFailed(
                "prepare",
                f"generation {live} serves here, and {proposal.base} on the proposing server;"
                f" {len(candidate.numbered)} triggers change here, and {proposal.versions} there",
            )
        if proposal.state is ProposalState.OPEN:
            proposal = await agreement.store.servers.vote(proposal.id, Vote(server=agreement.members.id))
        while proposal.state is ProposalState.OPEN:
            await agreement.changes.wait()
            proposal = await self._look(proposal)
        self.proposal = proposal
        if proposal.state is ProposalState.DROPPED:
            raise StageFailed("prepare", "the servers on the store did not agree to adopt it")

    async def _look(self, proposal: Proposal) -> Proposal:
        """Return the proposal as it is now; one whose proposer is gone is decided here."""
        try:
            return await self.agreement.store.servers.decide(proposal.id)
        except EventLogUnavailable:
            return proposal

    def end(self) -> None:
        """See `IDecision.end`."""

    async def outcome(self) -> Sequence[ServerAdoption]:
        """See `IDecision.outcome`: the report of the server that proposed it names all."""
        return ()


def _looked_in_vain(failure: Failure) -> None:
    if failure.check(EventLogUnavailable) is None:
        log.failure("looking at what another server proposes failed", failure)
