"""
The decisions about a generation, each as one server takes part in it: one that proposes, one that follows, and one that
splits from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from harn.errors import EventLogUnavailable, StageFailed, StoreError
from harn.model.display import list_some
from harn.model.references import uuid7
from harn.reload.generation import Candidate
from harn.reload.interfaces import IDecision, NotAgreed
from harn.reload.report import ReloadRequest
from harn.reload.results import ServerAdoption
from harn.servers.operations import server_id
from harn.servers.votes import has_terms, not_agreed, several_serve
from harn.store.proposals import Proposal, ProposalState, Vote
from harn.store.servers import SERVING, STARTING

if TYPE_CHECKING:
    from harn.servers.agreement import Agreement

log = Logger(namespace="harn.servers")

PAUSE = 1.0
"""Seconds between two looks at a proposal of which nothing was announced."""
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


@implementer(IDecision)
@define(eq=False)
class Proposing:
    """The decision about a generation that this server proposes."""

    agreement: Agreement
    request: ReloadRequest
    reunites: bool = False
    follows: int | None = None
    splits: bool = False
    proposal: Proposal | None = field(default=None, init=False)

    async def agree(self, candidate: Candidate, seconds: float) -> None:
        """See `IDecision.agree`."""
        ends_at = self.agreement.clock.seconds() + seconds
        try:
            self.proposal = proposal = await self._decided(await self._propose(candidate, ends_at), ends_at)
        except StoreError as error:  # whatever was written, it is dropped or followed with the next look
            raise StageFailed("prepare", f"the other servers on the store were not asked in full: {error}") from error
        if proposal.state is ProposalState.DROPPED:
            raise self._not_agreed(proposal)

    async def _propose(self, candidate: Candidate, ends_at: float) -> Proposal:
        agreement = self.agreement
        agreement.proposes = f"reload_{uuid7(agreement.wall.seconds())}"
        new = Proposal(
            id=agreement.proposes,
            by=0,
            generation=candidate.generation.number,
            base=agreement.base,
            versions=len(candidate.numbered),
            actor=self.request.actor,
            reason=self.request.reason,
            is_alone=has_terms(candidate, self.request),
        )
        try:
            proposal: Proposal = await agreement.store.servers.propose(new)
        except EventLogUnavailable as error:
            return await self._written(new, error, ends_at)
        return proposal

    async def _written(self, proposal: Proposal, error: EventLogUnavailable, ends_at: float) -> Proposal:
        """
        Read a proposal again whose answer was lost, for it may be decided: only this reload has its terms.

        :raises EventLogUnavailable: it was not written, or the store did not answer until ``ends_at`` (the clock's
            seconds); as ``error``.
        """
        while True:
            try:
                found = await self.agreement.store.servers.proposal()
            except EventLogUnavailable:
                if self.agreement.clock.seconds() >= ends_at:
                    raise error from None
                await deferLater(self.agreement.clock, PAUSE)
                continue
            if found is None or found.id != proposal.id:
                raise error
            return found

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
            return several_serve(proposal.members.values())
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
class Splitting:
    """The decision about a generation that this server adopts alone, beside others on its store."""

    agreement: Agreement
    request: ReloadRequest
    follows: int | None = None
    splits: bool = True
    reunites: bool = False

    async def agree(self, candidate: Candidate, seconds: float) -> None:
        """See `IDecision.agree`."""
        if has_terms(candidate, self.request):
            raise several_serve(await self.agreement.members.in_status(SERVING, STARTING))
        generation, generations = candidate.generation, self.agreement.store.generations
        try:  # as long as this server has the turn: the next one withdraws what is only reserved
            await generations.adopted(generation.number, self.agreement.wall.seconds())
        except StoreError as error:
            raise StageFailed("prepare", f"generation {generation.number} cannot be recorded: {error}") from error
        log.warn(
            "generation {number} is adopted here alone: a reload without --here brings all servers together again",
            number=candidate.generation.number,
        )

    async def outcome(self) -> Sequence[ServerAdoption]:
        """See `IDecision.outcome`: the others stay as they were."""
        agreement = self.agreement
        own = agreement.members.id, agreement.coordinator.generation
        with suppress(EventLogUnavailable, CancelledError):
            await agreement.members.in_status(SERVING)
        others = [each for each in agreement.members.others if each.note.status == SERVING]
        return (
            ServerAdoption(id=own[0], generation=own[1], status="adopted"),
            *(
                ServerAdoption(id=server_id(each.host, each.pid), generation=each.note.generation, status="unchanged")
                for each in others
            ),
        )

    def end(self) -> None:
        """See `IDecision.end`."""
        self.agreement.release()


@implementer(IDecision)
@define(eq=False)
class Following:
    """The decision about a generation that another server proposes."""

    agreement: Agreement
    proposal: Proposal
    splits: bool = False
    reunites: bool = False

    @property
    def follows(self) -> int:
        """See `IDecision.follows`."""
        return self.proposal.generation

    async def agree(self, candidate: Candidate, seconds: float) -> None:
        """See `IDecision.agree`."""
        agreement, proposal = self.agreement, self.proposal
        live = agreement.base
        if proposal.state is ProposalState.OPEN and live != proposal.base:
            if live < proposal.base and agreement.failure:
                raise StageFailed(
                    "prepare",
                    f"generation {live} serves here, since this server could not adopt generation {proposal.base}:"
                    f" {agreement.failure}; repair that, or end this server",
                )
            raise StageFailed(
                "prepare",
                f"generation {live} serves here, and {proposal.base} on the proposing server; it can be reloaded once"
                " this server has adopted that, or has ended",
            )
        self._check_draining(candidate)
        if proposal.state is ProposalState.OPEN:
            proposal = await agreement.store.servers.vote(proposal.id, Vote(server=agreement.members.id))
        while proposal.state is ProposalState.OPEN:
            await agreement.changes.wait()
            proposal = await self._look(proposal)
        self.proposal = proposal
        if proposal.state is ProposalState.DROPPED:
            raise StageFailed("prepare", "the servers on the store did not agree to adopt it")

    def _check_draining(self, candidate: Candidate) -> None:
        """
        Check that no version is added that still drains here: this server alone had removed its trigger.

        :raises StageFailed: there is one.
        """
        bindings = candidate.generation.bindings
        draining = [
            bindings[each].key
            for each in candidate.plan.added
            if self.agreement.registry.get(each, bindings[each].version) is not None
        ]
        if draining:
            raise StageFailed(
                "prepare",
                f"{list_some(draining)} still drains here, since this server alone had removed it; try again when that"
                " has ended, or cancel its drain",
            )

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
