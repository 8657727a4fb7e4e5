"""What the coordinator tells its composer, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from harn.reload.attempt import Draft
from harn.reload.generation import Candidate
from harn.reload.report import ReloadReport


@frozen
class Finished:
    """What observers learn of a reload that ended: its report, and how long each stage took (seconds)."""

    report: ReloadReport
    stages: dict[str, float]
    merged: int = 1


async def _no_details(draft: Draft) -> Mapping[str, Any]:
    return {}


@frozen(kw_only=True)
class Hooks:
    """
    What the coordinator's composer wants to do at its turns.

    :ivar began: at the begin of each run that may change something. ``ended``: at its end, however it ended; with its
        report, if it has one. Must not raise.
    :ivar adopted: right after the swap, in the same turn: apply the generation's settings. Must not raise; is logged
        if it does.
    :ivar publish: before the caller is answered: record and state file; gives warnings, one for each failure.
    :ivar describe: makes the details of a dry run.
    """

    adopted: Callable[[Candidate], None]
    publish: Callable[[Finished], Deferred[list[str]]]
    began: Callable[[], None] = lambda: None
    ended: Callable[[ReloadReport | None], None] = lambda report: None
    describe: Callable[[Draft], Awaitable[Mapping[str, Any]]] = field(default=_no_details)
