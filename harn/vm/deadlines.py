"""
What to do about a call whose time is up: a pure decision from what the child's watchdog says.

A blocked loop is one culprit's doing. The others' time does not run meanwhile, and only who is proven guilty, or was
alone, pays for the process's end.
"""

from __future__ import annotations

from enum import Enum

from harn.vm.frames import BLOCKED_BY_NOBODY, LOOP_TURNS


class Verdict(Enum):
    """What is to be done about one overdue call."""

    WAIT = "look again soon: another call keeps the loop from it, and has a deadline of its own"
    CANCEL = "ask it to end, and look again after a grace"
    CONVICT = "end the process: this call is the cause"
    ACQUIT = "end the process: what an earlier call left behind blocks it, none that is in it"
    SUSPECT = "end the process: nobody can tell which of its calls is the cause"


def judge(number: int, *, cancelled: bool, culprit: int | None, alone: bool, left_behind: bool = False) -> Verdict:
    """
    Decide about an overdue call.

    :param cancelled: it was asked to end, and its grace is over.
    :param culprit: what a fresh `harn.vm.frames.Pong` names, or None when none came: some code holds the whole process.
    :param alone: no other call is in the process.
    :param left_behind: the culprit is over, something that it started blocks the loop, and has done so for a while.
    """
    end = Verdict.CONVICT if alone else Verdict.SUSPECT
    if culprit is None:
        return end
    if culprit in (LOOP_TURNS, number):
        return Verdict.CONVICT if cancelled else Verdict.CANCEL
    if culprit == BLOCKED_BY_NOBODY:
        return end if cancelled else Verdict.CANCEL
    return Verdict.ACQUIT if left_behind else Verdict.WAIT
