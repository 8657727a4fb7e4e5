"""
One connection: where a request is decided when its headers are in, and where time and size are bounded.

Why a subclass of ``HTTPChannel``: the channel alone knows a request's method and target before its body arrives, so
only here can 404, 405, 413 and 503 be said in time, ``100 Continue`` be held back from a request that is turned away,
and a lease be taken on the routes that were live when the headers ended. What it takes from its parent beside public
names are the request line (``_command``, ``_path``, ``_version``), the two sums of the headers' size, the line that has
no end yet (``_buffer``), the bytes of later requests (``_dataBuffer``), whether bytes are being taken in
(``_busyReceiving``), the trailers of the decoder of chunks, and the hook for malformed input,
``_respondToBadRequestAndDisconnect``; the tests meet each of them through real bytes.

Why no timer for each connection: every state has a deadline, a number that costs one assignment, and the site looks
at all of them once a second. Deadlines are for whole states, so a client that sends one byte a second gains nothing.
"""

# ruff: noqa: N802
# Names are those of twisted.web, whose own functions are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport, ITCPTransport
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from harn.errors import BodyTimedOut, MessageMalformed, Refused, Saturated, ShuttingDown
from harn.listener.framing import check_trailers, has_bare_end, is_persistent, refusal_of
from harn.listener.problems import Answer, Status, problem, problem_of
from harn.listener.unverified import network_of

if TYPE_CHECKING:
    from harn.listener.request import HarnRequest
    from harn.listener.site import HarnSite

IDLE, HEADERS, BODY, HANDLING, CLOSING = "idle", "headers", "body", "handling", "closing"

_RANKS = {CLOSING: 0, IDLE: 2, HEADERS: 3, BODY: 4, HANDLING: 5}
_SILENT = 1
_NO_ROOM = "the server has as many connections as it may; send the request again"
LARGE_HEAD = 4096
"""Bytes of a head from which on they are counted while its body is read."""
_FOLDS = (b" ", b"\t")
_TIMED_OUT = Status(408, "Request timed out")
_URI_TOO_LONG = Status(414, "URI too long")
_HEADERS_TOO_LARGE = Status(431, "Request header fields too large")

log = Logger(namespace="harn.listener")


@implementer(IHalfCloseableProtocol)
class HarnChannel(HTTPChannel):
    """
    :ivar phase: `IDLE` between requests, `HEADERS`, `BODY`, `HANDLING`, `CLOSING` once we are done with the client.
    :ivar since: when that phase began (seconds of the site's clock).
    :ivar deadline: when that phase must be over (seconds of the site's clock).
    :ivar read_by: when a full send buffer must have been read.
    :ivar is_surplus: whether it came when there was no room for another connection; it is answered 503, soon.
    :ivar unverified: bytes of a head that is not complete, counted by `harn.listener.unverified`.
    :ivar owes_nothing: whether a server that goes down may leave it as it is: all that was asked for is answered.
    """

    site: HarnSite
    requests: list[HarnRequest]
    persistent: bool
    transport: Any  # whatever it is, twisted.web has met it

    maxHeaders = 200  # noqa: N815 - twisted.web's name
    totalHeadersSize = 64 * 1024  # noqa: N815 - twisted.web's name

    phase = IDLE
    since = 0.0
    deadline = inf
    read_by = inf
    is_surplus = False
    owes_nothing = False
    _discarded = 0
    _gone_by = inf
    _header = b""
    unverified = 0
    _has_spoken = False
    _has_client_ended = False
    _source: str | None = None

    @property
    def source(self) -> str:
        """The client's address, of IPv6 the network that one customer has (64 bits); empty where there is none."""
        if self._source is None:
            self._source = network_of(getattr(self.transport.getPeer(), "host", ""))
        return self._source

    # From the transport

    def connectionMade(self) -> None:
        """Begin to count the time."""
        super().connectionMade()
        site = self.site
        self._enter(IDLE, site.limits.idle)
        self.owes_nothing = site.quiescing
        site.channels.add(self)
        if not site.connection_limit.admit():
            self.is_surplus = True
            self._enter(IDLE, site.limits.grace)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes: of requests, or, when we are done with the client, of what it had not stopped sending yet."""
        if self.phase is CLOSING:
            self._discarded += len(data)
            linger_by = self.site.clock.seconds() + self._limited(self.site.limits.linger)
            self.deadline = max(self.deadline, min(linger_by, self._gone_by))
            if self._discarded > self.site.limits.linger_bytes:
                self.transport.abortConnection()
            return
        if self.phase is IDLE:
            self._has_spoken = True
            self._enter(HEADERS, self.site.limits.headers)
        # Not the parent's, which would give the client more time for each byte.
        LineReceiver.dataReceived(self, data)
        # Called from within itself, it has only taken up the bytes of a next request; they are looked at later.
        if self.phase is HEADERS and not self._busyReceiving:
            self._check_unfinished(len(data))
        if self._has_client_ended:
            self._close_if_answered()

    def readConnectionLost(self) -> None:
        """
        Called when the client has ended its side: what came whole is answered, then the connection is closed.

        It may come more than once, since whoever reads on after the end finds the end again.
        """
        self._has_client_ended = True
        if self.phase is CLOSING:
            self.transport.loseConnection()
        else:
            self._close_if_answered()

    def writeConnectionLost(self) -> None:
        """Called when our side has ended, which `loseConnection` asked for."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # twisted's own is untyped
        """Forget the connection."""
        self.site.channels.discard(self)
        self.site.unverified.release(self)
        super().connectionLost(reason)
        if self.site.closes and not (self.owes_nothing and self.site.channels):
            self.site.check_quiet()

    def pauseProducing(self) -> None:
        """The send buffer is full: from now on the client's time to read runs."""
        self.read_by = self.site.clock.seconds() + self.site.limits.unread
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The send buffer is empty again."""
        self.read_by = inf
        super().resumeProducing()

    # From the parent's parser

    def lineReceived(self, line: bytes) -> None:
        """Take one line of the head; one that goes on from the line before it (``obs-fold``) is refused."""
        if line[:1] in _FOLDS:
            self._turn_away(
                problem_of(MessageMalformed("no line of the head may begin with a space; write it as one line"))
            )
        else:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """Take one header; a length of thousands of digits is malformed and not an error of ours."""
        self._header = line
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self._respondToBadRequestAndDisconnect()
            return False

    def _check_unfinished(self, length: int) -> None:
        """Check a head that has not ended yet, and count the bytes of it that have just come."""
        try:
            if has_bare_end(self._buffer):
                raise MessageMalformed("each line of the head must end in CRLF, got a lone CR or LF")
            self.site.unverified.grow(self, length)
        except Refused as error:
            self._turn_away(problem_of(error))

    def allHeadersReceived(self) -> None:
        """Let the request decide; one that waits for our word and is turned away never hears ``100 Continue``."""
        request = self.requests[-1]
        self._header = b""
        self.site.unverified.release(self)
        self.persistent = is_persistent(self._version, request.requestHeaders) and not self.is_surplus
        request.begin(self._command, self._path, self._version, self.length)
        if self.phase is CLOSING:
            self.clearLineBuffer()
            return
        self.phase = BODY
        if self.length != 0:
            self._enter(BODY, self.site.limits.body)
            if self._receivedHeaderSize > LARGE_HEAD and request.answered is None:
                self._count_head(request)
            expect = request.requestHeaders.getRawHeaders(b"Expect")
            if expect and expect[0].lower() == b"100-continue" and self._version == b"HTTP/1.1":
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _count_head(self, request: HarnRequest) -> None:
        """Go on to count a large head while its body is read."""
        try:
            request.count_unverified(self._receivedHeaderSize)
        except Refused as error:
            request.cut_off(request.problem(error))

    def allContentReceived(self) -> None:
        """The request is complete: from now on the time is ours."""
        # Only the decoder of chunks has them, and only some releases keep them.
        trailers = getattr(self._transferDecoder, "_trailerHeaders", None)
        if trailers:
            try:
                check_trailers(trailers)
            except Refused as error:
                self._end_body(problem_of(error))
                return
        if self.phase is not CLOSING:
            self.phase = HANDLING
            self.deadline = inf
        super().allContentReceived()

    def requestDone(self, request: HarnRequest) -> None:
        """Wait for the next request, or close."""
        if self.phase is not CLOSING:
            self._enter(IDLE, self.site.limits.idle)
        super().requestDone(request)
        if self._has_client_ended:
            self._close_if_answered()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Turn away a request line or header that is endless."""
        if self.phase is CLOSING:
            return
        if not self.requests:
            self._turn_away(problem(_URI_TOO_LONG, f"the request line is longer than {self.MAX_LENGTH} bytes"))
        else:
            self._refuse_headers()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self.phase is CLOSING:
            return
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self._refuse_headers()
        elif self.phase is BODY:
            self._end_body(problem_of(MessageMalformed("the chunks of the body are malformed")))
        elif self._header:
            self._turn_away(problem_of(refusal_of(self._header)))
        else:
            self._turn_away(
                problem_of(
                    MessageMalformed("the first line must be that of an HTTP/1.1 request: method, target and version")
                )
            )

    # Ending

    def loseConnection(self) -> None:
        """
        Close so that our last answer is not lost.

        A socket closed while bytes are unread resets the connection, and the reset can overtake the answer. So we end
        our side only, throw away what still comes, and let the client close, within a time and a size. From a client
        that has ended its side nothing comes.
        """
        if self.phase is CLOSING:
            return
        limits = self.site.limits
        self._enter(CLOSING, limits.grace if self.site.closes else limits.linger)
        if self.read_by != inf:
            self.deadline = self.read_by  # a client that has a long answer to read yet has the time to read it
        self._gone_by = self.since + self._limited(limits.body)
        is_plain = ITCPTransport.providedBy(self.transport) and not ISSLTransport.providedBy(self.transport)
        if is_plain and not self._has_client_ended:
            self.transport.unregisterProducer()
            self.transport.resumeProducing()  # it may have been paused, and what comes has to be thrown away
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()

    def _close_if_answered(self) -> None:
        """Close for a client that has ended its side; what is not whole by now will never be."""
        if self._busyReceiving:
            return  # there may be another whole request among the bytes
        if self.phase is not HANDLING:
            self.loseConnection()
        elif not any(self._dataBuffer):
            self.persistent = False  # the answer says that it is the last

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

    def give_way(self) -> None:
        """Called when the head is the slowest, and others need the room."""
        self._turn_away(
            problem_of(BodyTimedOut("the headers came too slowly, and others need their room", retry_after=1))
        )

    def give_up_place(self) -> None:
        """Called when others need its descriptor, and it was waiting."""
        if self.phase is CLOSING:
            self.transport.abortConnection()
        elif self.phase is BODY:
            self._end_body(problem_of(Saturated(_NO_ROOM, retry_after=1)))
        else:
            # Ended as for a client that has ended its side: nothing is waited for, so that the descriptor is free.
            self._has_client_ended = True
            if self.phase is HEADERS or self.is_surplus:
                self._turn_away(problem_of(Saturated(_NO_ROOM, retry_after=1)))
            else:
                self.loseConnection()

    def _enter(self, phase: str, seconds: float) -> None:
        """Begin a phase that may take so many seconds."""
        self.phase = phase
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
            return Saturated(_NO_ROOM, retry_after=1)
        if self.site.quiescing:
            return ShuttingDown("the server is shutting down, and the request was not complete; send it again")
        return None

    def _end_body(self, answer: Answer) -> None:
        """Answer for a body that will not be complete; one that was turned away before has its answer already."""
        if self.requests:
            self.requests[-1].cut_off(answer)
        self.clearLineBuffer()
        self.loseConnection()

    def _refuse_headers(self) -> None:
        detail = (
            f"the headers are larger than {self.totalHeadersSize} bytes, more than {self.maxHeaders}, or one of "
            f"them is longer than {self.MAX_LENGTH}"
        )
        self._turn_away(problem(_HEADERS_TOO_LARGE, detail))

    def _turn_away(self, answer: Answer) -> None:
        """Answer bytes that are not a request, or not yet a whole one, and close."""
        self.site.unverified.release(self)
        self.clearLineBuffer()
        self.write(answer.last_bytes(self.site.date_header()))
        self.site.metrics.http_request(self.site.unknown_endpoint, "other", answer.status, 0.0, 0)
        self.loseConnection()
