"""
The phases of a connection, each with a deadline.

A connection has no timer. Its deadline is a number, which is assigned when a phase begins, and the site checks the
deadlines of all connections about once a second. Bytes received do not extend a deadline, so a client that sends one
byte a second gains nothing.
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
    The limits of connections: times in seconds, sizes in bytes.

    :ivar headers: the time from the first byte of a request to the end of its headers.
    :ivar body: the time from the end of the headers to the end of the body.
    :ivar idle: the time between requests, and before the first.
    :ivar unread: the time for which a full send buffer may stay unread.
    :ivar linger: the time after the last response for which a client may send nothing without closing. A client that
        continues to send has the time of ``body``, and ``linger_bytes``.
    :ivar linger_bytes: the bytes after the last response that are read and discarded.
    :ivar grace: the time, when the server shuts down, for a request to be complete and for a client to close.
    :ivar skipped_body: the largest body of a refused request that is read and discarded so that the connection is kept.
    :ivar threaded_body: the largest body that is verified and normalized on the reactor thread; larger ones are
        processed in a thread.
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
    A connection with a current phase; it is ended when the phase exceeds its deadline.

    It is registered as the producer of its transport, which therefore pauses it when the send buffer is full.

    A phase that begins and ends within one call of ``dataReceived`` gets no deadline: `_is_timed` is true if the
    current phase has its own.

    :ivar persistent: whether the connection may stay open after the present request.
    :ivar phase: `IDLE` between requests, `HEADERS`, `BODY`, `HANDLING`, `CLOSING` after the last response, `STREAMING`
        during a response of `harn.listener.stream`.
    :ivar since: when the phase began (seconds of the site's clock).
    :ivar deadline: when the phase must have ended (seconds of the site's clock).
    :ivar read_by: when a full send buffer must have been read (seconds of the site's clock).
    :ivar is_surplus: whether it exceeded the limit of connections when it was accepted; it is soon answered with 503.
    :ivar is_streaming: whether its last response is or was a stream.
    :ivar owes_nothing: whether a server that shuts down need not wait for it, as every request is answered.
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
        """Called when the connection is lost: do nothing, as `connectionLost` is called too."""

    def begin_stream(self) -> None:
        """Begin a stream: a response without a deadline, which ends with this connection."""
        self.persistent = False
        self.is_streaming = self.owes_nothing = True
        self._enter(STREAMING, inf)

    def go_down(self) -> None:
        """
        Called when the server shuts down: close an idle connection, end a stream, and shorten the deadline of an
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
        Return whether a server that shuts down waits for the connection: until the last response is read, or until
        `read_by`.
        """
        return self.phase is not IDLE and not self.owes_nothing

    @property
    def waiting(self) -> tuple[int, float]:
        """Return its rank for closing, by its phase, and when the phase began; the lowest rank is closed first."""
        return _SILENT if self.phase is IDLE and not self._has_spoken else _RANKS[self.phase], self.since

    @property
    def began_at(self) -> float:
        """Return when the head that is being read began."""
        return self.since

    def _enter(self, phase: str, seconds: float) -> None:
        """Begin a phase whose deadline is in ``seconds``."""
        self.phase = phase
        self._is_timed = True
        site = self.site
        now = self.since = site.clock.seconds()
        self.deadline = now + (self._limited(seconds) if self.is_surplus or site.quiescing else seconds)

    def _limited(self, seconds: float) -> float:
        """Return the limit of a phase: at most `Limits.grace` on a surplus connection, or if the server shuts down."""
        return min(seconds, self.site.limits.grace) if self.is_surplus or self.site.quiescing else seconds

    def is_late(self, now: float) -> bool:
        """Return whether the connection exceeds a deadline. The site calls this about once a second."""
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
        """Return the error for a request whose time was shortened; None if it had the usual time."""
        if self.is_surplus:
            return Saturated(NO_ROOM, retry_after=1)
        if self.site.quiescing:
            return ShuttingDown("the server is shutting down, and the request was not complete; send it again")
        return None

    def end(self) -> None:
        """Close the connection so that the last response is not lost."""
        raise NotImplementedError

    def _end_body(self, answer: Response) -> None:
        """Send a response to a request whose body will not be complete."""
        raise NotImplementedError

    def _refuse_early(self, answer: Response) -> None:
        """Send a response to bytes that are not a complete request, and close."""
        raise NotImplementedError
