"""
The phases of a connection, each with a deadline.

There is no timer for each connection: every phase has a deadline, a number that costs one assignment, and the site
checks all of them once a second. Deadlines are for whole phases, so a client that sends one byte a second gains
nothing.
"""

# ruff: noqa: N802
# Names are those of twisted.
from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from harn.errors import BodyTimedOut, Refused, Saturated, ShuttingDown
from harn.listener.problems import Response, problem, problem_of
from harn.operations.statuses import Status


class Limits(Struct, frozen=True, kw_only=True):
    """
    Seconds and bytes.

    :ivar headers: from a request's first byte to the end of its headers.
    :ivar body: from there to the end of its body.
    :ivar idle: between requests, and before the first.
    :ivar unread: how long a full send buffer may stay unread.
    :ivar linger: after the last answer: how long the client may be silent without closing. A client that continues to
        send has as long as for a body, and ``linger_bytes``.
    :ivar grace: when the server goes down: how long a request may still take to be complete, and a client to close.
    :ivar skipped_body: a rejected request's body of up to this size is read and discarded, and the connection kept.
    :ivar threaded_body: a body above this size is verified and normalized in a thread.
    :ivar admin_body: the largest body of an admin request.
    """

    headers: float = 10.0
    body: float = 30.0
    idle: float = 75.0
    unread: float = 60.0
    linger: float = 5.0
    linger_bytes: int = 64 * 1024 * 1024
    grace: float = 1.0
    skipped_body: int = 64 * 1024
    threaded_body: int = 256 * 1024
    admin_body: int = 1024 * 1024


if TYPE_CHECKING:
    from harn.listener.site import HarnSite

IDLE, HEADERS, BODY, HANDLING, CLOSING = "idle", "headers", "body", "handling", "closing"
STREAMING = "streaming"

_RANKS = {CLOSING: 0, IDLE: 2, HEADERS: 3, BODY: 4, STREAMING: 4, HANDLING: 5}
_SILENT = 1
NO_ROOM = "the server has as many connections as it may; send the request again"
_TIMED_OUT = Status(408, "Request timed out")


@implementer(IPushProducer)
class PhasedChannel(Protocol):
    """
    A connection with a current phase, which is ended when that takes too long.

    It is registered as its transport's producer, and so is paused when the send buffer is full.

    A phase that begins and ends while one piece of bytes is processed gets no deadline: `_is_timed` is true if the
    current one has its own.

    :ivar persistent: whether it may stay open after the present request.
    :ivar phase: `IDLE` between requests, `HEADERS`, `BODY`, `HANDLING`, `CLOSING` after the last answer, `STREAMING`
        during one that continues; see `harn.listener.stream`.
    :ivar since: when that phase began (seconds of the site's clock).
    :ivar deadline: when that phase must have ended (seconds of the site's clock).
    :ivar read_by: when a full send buffer must have been read.
    :ivar is_surplus: whether it came when the limit of connections was reached; it is answered 503, soon.
    :ivar is_streaming: whether its last answer continues, or has continued, until its end.
    :ivar owes_nothing: whether a server that goes down may leave it as it is: every request is answered.
    """

    transport: Any  # a stream: TCP, TLS, or one in memory

    persistent = True
    phase = IDLE
    since = 0.0
    deadline = inf
    read_by = inf
    is_surplus = False
    is_streaming = False
    owes_nothing = False
    _is_timed = False
    _has_spoken = False

    def __init__(self, site: HarnSite) -> None:
        self.site = site

    def pauseProducing(self) -> None:
        """Called when the send buffer is full: the client's time to read starts."""
        self.read_by = self.site.clock.seconds() + self.site.limits.unread

    def resumeProducing(self) -> None:
        """Called when the send buffer is empty again."""
        self.read_by = inf

    def stopProducing(self) -> None:
        """Called when the connection is lost: `connectionLost` does what has to be done."""

    def begin_stream(self) -> None:
        """Begin an answer that continues until this connection ends: it is the last, and has no deadline."""
        self.persistent = False
        self.is_streaming = self.owes_nothing = True
        self._enter(STREAMING, inf)

    def go_down(self) -> None:
        """
        Called when the server goes down: close an idle connection, end a stream, and shorten the deadline of an
        incomplete request.
        """
        if self.phase is STREAMING:
            self.end()
        elif self.phase is IDLE:
            self.owes_nothing = self.read_by == inf
            self.end()
        elif self.phase is not HANDLING:
            self.deadline = min(self.deadline, self.site.clock.seconds() + self.site.limits.grace)

    @property
    def holds_up(self) -> bool:
        """
        Whether a server that goes down waits for it: until its last answer is read, or its time to be read has passed.
        """
        return self.phase is not IDLE and not self.owes_nothing

    @property
    def waiting(self) -> tuple[int, float]:
        """Its rank for closing, the least useful first, and since when: by its phase."""
        return _SILENT if self.phase is IDLE and not self._has_spoken else _RANKS[self.phase], self.since

    @property
    def began_at(self) -> float:
        """When the head that is being read began."""
        return self.since

    def _enter(self, phase: str, seconds: float) -> None:
        """Begin a phase that may take so many seconds."""
        self.phase = phase
        self._is_timed = True
        site = self.site
        now = self.since = site.clock.seconds()
        self.deadline = now + (self._limited(seconds) if self.is_surplus or site.quiescing else seconds)

    def _limited(self, seconds: float) -> float:
        """Return the limit of a phase: less on a surplus connection, or when the server goes down."""
        return min(seconds, self.site.limits.grace) if self.is_surplus or self.site.quiescing else seconds

    def is_late(self, now: float) -> bool:
        """Return whether it exceeds a deadline. Called by the site, about once a second."""
        return now >= self.deadline or now >= self.read_by

    def end_late(self, now: float) -> None:
        """End a connection that exceeds a deadline."""
        if self.phase is CLOSING or now >= self.read_by:
            self.transport.abortConnection()
        elif self.phase is IDLE and not self.is_surplus:
            self.end()
        elif self.phase is IDLE or self.phase is HEADERS:
            limit = self.site.limits.headers
            late = problem(_TIMED_OUT, f"the headers were not complete within {limit:g} s")
            early = self._cut_short()
            self._refuse_early(late if early is None else problem_of(early))
        else:
            limit = self.site.limits.body
            late_body = BodyTimedOut(f"the body was not complete within {limit:g} s", retry_after=1)
            self._end_body(problem_of(self._cut_short() or late_body))

    def _cut_short(self) -> Refused | None:
        """Return why a request had less time than usual; None if it had all of it."""
        if self.is_surplus:
            return Saturated(NO_ROOM, retry_after=1)
        if self.site.quiescing:
            return ShuttingDown("the server is shutting down, and the request was not complete; send it again")
        return None

    def end(self) -> None:
        """Close so that the last answer is not lost."""
        raise NotImplementedError

    def _end_body(self, answer: Response) -> None:
        """Answer for a body that will not be complete."""
        raise NotImplementedError

    def _refuse_early(self, answer: Response) -> None:
        """Answer bytes that are not a request, or not yet a complete one, and close."""
        raise NotImplementedError
