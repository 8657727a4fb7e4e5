"""
The phases of a connection, each of which must be over at a time.

Why no timer for each connection: every state has a deadline, a number that costs one assignment, and the site looks
at all of them once a second. Deadlines are for whole states, so a client that sends one byte a second gains nothing.
"""

# ruff: noqa: N802
# Names are those of twisted.web, whose own functions are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.web.http import HTTPChannel

from harn.errors import BodyTimedOut, Refused, Saturated, ShuttingDown
from harn.listener.problems import Answer, Status, problem, problem_of

if TYPE_CHECKING:
    from harn.listener.site import HarnSite

IDLE, HEADERS, BODY, HANDLING, CLOSING = "idle", "headers", "body", "handling", "closing"

_RANKS = {CLOSING: 0, IDLE: 2, HEADERS: 3, BODY: 4, HANDLING: 5}
_SILENT = 1
NO_ROOM = "the server has as many connections as it may; send the request again"
_TIMED_OUT = Status(408, "Request timed out")


class PhasedChannel(HTTPChannel):
    """
    A connection that notes which phase it is in, and ends what takes too long.

    A phase that begins and ends while one piece of bytes is taken in gets no deadline: `_is_timed` says whether the
    current one has its own.

    :ivar phase: `IDLE` between requests, `HEADERS`, `BODY`, `HANDLING`, `CLOSING` once we are done with the client.
    :ivar since: when that phase began (seconds of the site's clock).
    :ivar deadline: when that phase must be over (seconds of the site's clock).
    :ivar read_by: when a full send buffer must have been read.
    :ivar is_surplus: whether it came when there was no room for another connection; it is answered 503, soon.
    :ivar owes_nothing: whether a server that goes down may leave it as it is: all that was asked for is answered.
    """

    site: HarnSite
    transport: Any  # whatever it is, twisted.web has met it

    phase = IDLE
    since = 0.0
    deadline = inf
    read_by = inf
    is_surplus = False
    owes_nothing = False
    _is_timed = False
    _has_spoken = False

    def pauseProducing(self) -> None:
        """The send buffer is full: from now on the client's time to read runs."""
        self.read_by = self.site.clock.seconds() + self.site.limits.unread
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The send buffer is empty again."""
        self.read_by = inf
        super().resumeProducing()

    def go_down(self) -> None:
        """Called when the server goes down: close what is idle, and give what is not complete its last time."""
        if self.phase is IDLE:
            self.owes_nothing = self.read_by == inf
            self.loseConnection()
        elif self.phase is not HANDLING:
            self.deadline = min(self.deadline, self.site.clock.seconds() + self.site.limits.grace)

    @property
    def holds_up(self) -> bool:
        """Whether a server that goes down waits for it: until its last answer is read, or had its time to be."""
        return self.phase is not IDLE and not self.owes_nothing

    @property
    def waiting(self) -> tuple[int, float]:
        """Return how little it is used: a rank by its phase, the least first, and since when."""
        return _SILENT if self.phase is IDLE and not self._has_spoken else _RANKS[self.phase], self.since

    @property
    def began_at(self) -> float:
        """When the head began that is being read."""
        return self.since

    def _enter(self, phase: str, seconds: float) -> None:
        """Begin a phase that may take so many seconds."""
        self.phase = phase
        self._is_timed = True
        self.since = self.site.clock.seconds()
        self.deadline = self.since + self._limited(seconds)

    def _limited(self, seconds: float) -> float:
        """Return how long what may take so many seconds may take here: less where there is no room, or no time."""
        return min(seconds, self.site.limits.grace) if self.is_surplus or self.site.quiescing else seconds

    def check_time(self, now: float) -> None:
        """End what takes too long. Called by the site, about once a second."""
        if now < self.deadline and now < self.read_by:
            return
        if self.phase is CLOSING or now >= self.read_by:
            self.transport.abortConnection()
        elif self.phase is IDLE and not self.is_surplus:
            self.loseConnection()
        elif self.phase is IDLE or self.phase is HEADERS:
            limit = self.site.limits.headers
            late = problem(_TIMED_OUT, f"the headers were not complete within {limit:g} s")
            early = self._cut_short()
            self._turn_away(late if early is None else problem_of(early))
        else:
            limit = self.site.limits.body
            late_body = BodyTimedOut(f"the body was not complete within {limit:g} s", retry_after=1)
            self._end_body(problem_of(self._cut_short() or late_body))

    def _cut_short(self) -> Refused | None:
        """Return why a request had less time than it has otherwise."""
        if self.is_surplus:
            return Saturated(NO_ROOM, retry_after=1)
        if self.site.quiescing:
            return ShuttingDown("the server is shutting down, and the request was not complete; send it again")
        return None

    def _end_body(self, answer: Answer) -> None:
        """Answer for a body that will not be complete."""
        raise NotImplementedError

    def _turn_away(self, answer: Answer) -> None:
        """Answer bytes that are not a request, or not yet a whole one, and close."""
        raise NotImplementedError
