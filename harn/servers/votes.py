"""Votes against a generation, and the terms and errors of a proposal: decisions on plain values."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from harn.errors import StageFailed
from harn.model.problem import Problem
from harn.reload.generation import Candidate
from harn.reload.interfaces import NotAgreed
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.results import ServerAdoption
from harn.store.proposals import Proposal, Vote, VoteProblem, waiting_for

MOST_PROBLEMS = 20
"""Problems that one vote names."""


def vote_against(server: str, report: ReloadReport) -> Vote:
    """Return the vote of a server that could not prepare a generation."""
    problems = tuple(
        VoteProblem(file=each.file, line=each.line, message=each.message, hint=each.hint)
        for each in report.problems[:MOST_PROBLEMS]
    )
    return Vote(server=server, why=report.error or "it failed", stage=report.stage or "prepare", problems=problems)


def has_terms(candidate: Candidate, request: ReloadRequest) -> bool:
    """Return whether the generation would be on probation, or ramp, which one server decides alone."""
    settings = candidate.generation.inputs.manifest.orchestrator.reload
    asked: tuple[Any, ...] = (request.confirm_within, request.revert_limit, request.ramp)
    kept = () if request.recall is not None else (settings.confirm_within, settings.revert_on_failures)
    return bool(candidate.rollouts) or any(each is not None for each in (*asked, *kept))


def check_split(others: Collection[str], *, is_allowed: bool) -> None:
    """
    Check that this server may reload alone.

    :param others: names of those that serve or start. ``is_allowed``: by the live settings.
    :raises StageFailed: it may not.
    """
    if not is_allowed:
        raise StageFailed(
            "prepare",
            f"--here would have this server serve another generation than {', '.join(others)} on the same store: reload"
            " all without it; or set allow_split = true in [orchestrator.reload], and reload all once",
        )


def several_serve(others: Collection[str]) -> StageFailed:
    """Return the error of a generation with such terms beside others, which are given by name."""
    return StageFailed(
        "prepare",
        f"a probation or ramp is decided by one server, and {', '.join(others)} serves or starts on"
        " the same store: leave out ramp, confirm_within and revert_on_failures, in the manifest too, or stop the other"
        " servers first",
    )


def not_agreed(proposal: Proposal, own: ServerAdoption, living: Collection[int]) -> NotAgreed:
    """
    Return the error of a proposal that was dropped: which server, at which stage, which problems.

    :param living: numbers of the other servers that live. Those that are gone were not waited for.
    """
    against = [vote for vote in proposal.votes.values() if vote.why]
    silent = [] if against else waiting_for(proposal, living)  # one vote against it, and no further vote is waited for
    said = [f"server {vote.server} cannot adopt it: {vote.stage}: {vote.why}" for vote in against]
    if silent:
        said.append(f"no answer in time from {', '.join(silent)}")
    refusing = {vote.server for vote in against}
    servers = [own]
    for number, name in proposal.members.items():
        if int(number) in living or name in refusing:
            status = "refused" if name in refusing else "silent" if name in silent else "unchanged"
            servers.append(ServerAdoption(id=name, generation=own.generation, status=status))
    problems = [
        Problem(file=each.file, line=each.line, message=f"server {vote.server}: {each.message}", hint=each.hint)
        for vote in against
        for each in vote.problems
    ]
    stage = against[0].stage if against else "prepare"
    return NotAgreed(stage, "; ".join(said or ["it was dropped"]) + "; no server has adopted it", problems, servers)
