"""
Proposals of a generation to all servers on a store: who is asked, how each votes, and when that decides. Pure.

The content of the generation is in the store when it is proposed. The proposer has prepared it; every other server that
serves prepares it from there, and votes. The transaction of the last vote decides: all adopt it, or none. One vote
against it is enough; a server that dies meanwhile is not asked any more; without an answer in time the proposer drops
it. A decision is never changed.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

import msgspec

PROPOSAL = "reload/proposal"
"""The name of the record of the last proposal."""
TURN = "reload/turn"
"""The name of the record of the server whose turn it is to reload."""


class ProposalState(StrEnum):
    """The state of a proposal."""

    OPEN = "open"
    ADOPTED = "adopted"
    DROPPED = "dropped"


class VoteProblem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem that a server found; see `harn.model.problem.Problem`."""

    file: str
    line: int | None = None
    message: str = ""
    hint: str = ""


class Vote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The vote of one server.

    :ivar server: its name.
    :ivar why: why it cannot adopt the generation; empty where it can.
    :ivar stage: where that failed.
    :ivar problems: each.
    """

    server: str
    why: str = ""
    stage: str = ""
    problems: tuple[VoteProblem, ...] = ()


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """
    One proposal.

    :ivar by: the number of the server that proposes.
    :ivar members: numbers and names of those that are asked.
    :ivar generation: its number.
    :ivar base: that of the generation which it is to follow, on each server.
    :ivar versions: how many binding versions are new in it.
    :ivar is_alone: it may be adopted only while no other server serves or starts.
    :ivar votes: by number.
    """

    id: str
    by: int
    generation: int
    base: int
    versions: int
    actor: str
    reason: str = ""
    is_alone: bool = False
    members: dict[str, str] = {}
    votes: dict[str, Vote] = {}
    state: ProposalState = ProposalState.OPEN


def voted(proposal: Proposal, number: int, vote: Vote) -> Proposal:
    """Return a proposal with one more vote; once it is decided, and by whoever is not asked, none counts."""
    if proposal.state is not ProposalState.OPEN or str(number) not in proposal.members:
        return proposal
    return msgspec.structs.replace(proposal, votes={**proposal.votes, str(number): vote})


def waiting_for(proposal: Proposal, living: Collection[int]) -> list[str]:
    """Return the names of the servers whose votes are missing; those that are gone are not asked any more."""
    alive = {str(each) for each in living}
    return [name for each, name in proposal.members.items() if each in alive and each not in proposal.votes]


def decided(proposal: Proposal, living: Collection[int], *, is_late: bool = False) -> Proposal:
    """
    Return a proposal with its state, after a vote, a death, or the end of the time for votes.

    :param living: numbers of the servers that have neither ended nor been fenced.
    :param is_late: the proposer waits no longer.
    """
    if proposal.state is not ProposalState.OPEN:
        return proposal
    is_refused = any(vote.why for vote in proposal.votes.values()) or (proposal.is_alone and bool(proposal.members))
    missing = waiting_for(proposal, living)
    if is_refused or proposal.by not in living or (missing and is_late):
        return msgspec.structs.replace(proposal, state=ProposalState.DROPPED)
    return proposal if missing else msgspec.structs.replace(proposal, state=ProposalState.ADOPTED)
