"""
One connection: a request is accepted or refused when its headers are in, and its time and size are limited.

This is a subclass of ``HTTPChannel`` because only the channel has a request's method and target before its body
arrives: only here can 404, 405, 413 and 503 be sent in time, ``100 Continue`` be held back from a refused request, and
a lease be acquired on the routes that were live when the headers ended. Private names that it uses of its parent are
the request line (``_command``, ``_path``, ``_version``), the two sums of the headers' size, the choice of the body's
decoder (``_maybeChooseTransferDecoder``), the incomplete line (``_buffer``), the bytes of later requests
(``_dataBuffer``), whether bytes are being processed (``_busyReceiving``), the trailers of the decoder of chunks, and
the hook for malformed input, ``_respondToBadRequestAndDisconnect``; the tests reach each of them through real bytes.
"""

# ruff: noqa: N802
# Names are those of twisted.web, whose own functions are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport, ITCPTransport
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import BodyTimedOut, MessageMalformed, Refused, Saturated
from harn.listener.framing import check_trailers, has_bare_end, header_of, is_persistent, refusal_of
from harn.listener.phases import BODY, CLOSING, HANDLING, HEADERS, IDLE, NO_ROOM, PhasedChannel
from harn.listener.problems import Response, Status, problem, problem_of
from harn.listener.refusals import LOGGED, NO_TARGET
from harn.listener.unverified import network_of

if TYPE_CHECKING:
    from harn.listener.request import HarnRequest
    from harn.listener.site import HarnSite

LARGE_HEAD = 4096
"""Size in bytes from which a head is counted while its body is read."""
_FOLDS = (b" ", b"\t")
_FRAMING = {"content-length": b"Content-Length", "transfer-encoding": b"Transfer-Encoding"}
"""The headers that set the length of a body, as the parent spells them."""
_URI_TOO_LONG = Status(414, "URI too long")
_HEADERS_TOO_LARGE = Status(431, "Request header fields too large")


@implementer(IHalfCloseableProtocol)
class HarnChannel(PhasedChannel):
    """
    A connection of `harn.listener.site.HarnSite`.

    :ivar unverified: bytes of an incomplete head, counted by `harn.listener.unverified`.
    """

    site: HarnSite
    requests: list[HarnRequest]
    persistent: bool

    maxHeaders = 200  # noqa: N815 - twisted.web's name
    totalHeadersSize = 64 * 1024  # noqa: N815 - twisted.web's name

    _discarded = 0
    _gone_by = inf
    _header = b""
    unverified = 0
    _has_client_ended = False
    _source: str | None = None

    @property
    def source(self) -> str:
        """The client's address, of IPv6 the network of one customer (64 bits); empty where there is none."""
        if self._source is None:
            self._source = network_of(self.address)
        return self._source

    @property
    def address(self) -> str:
        """The client's address; empty where there is none."""
        host: str = getattr(self.transport.getPeer(), "host", "")
        return host

    def note_refusal(self, target: str, status: int, detail: str) -> None:
        """Log a refusal of this client, within bounds; see `Refusals.note`."""
        self.site.refusals.note(target, status, detail, self.address, self.source)

    # From the transport

    def connectionMade(self) -> None:
        """Start the time of the first phase."""
        super().connectionMade()
        site = self.site
        self._enter(IDLE, site.limits.idle)
        self.owes_nothing = site.quiescing
        site.channels.add(self)
        if not site.connection_limit.admit():
            self.is_surplus = True
            self._enter(IDLE, site.limits.grace)

    def dataReceived(self, data: bytes) -> None:
        """Process bytes: of requests, or, after the last answer, discard them."""
        if self.phase is CLOSING:
            self._discarded += len(data)
            linger_by = self.site.clock.seconds() + self._limited(self.site.limits.linger)
            self.deadline = max(self.deadline, min(linger_by, self._gone_by))
            if self._discarded > self.site.limits.linger_bytes:
                self.transport.abortConnection()
            return
        if self.phase is IDLE:
            self._has_spoken = True
            self.phase = HEADERS
            self._is_timed = False
        # Not the parent's method, which would give the client more time for each byte.
        LineReceiver.dataReceived(self, data)
        # A request in one piece has passed these phases by now, and never needed their deadlines. A nested call has
        # only buffered the bytes of a next request; they are processed later.
        if not self._busyReceiving and (self.phase is HEADERS or self.phase is BODY):
            self._wait_for_more(len(data))
        if self._has_client_ended:
            self._close_if_answered()

    def readConnectionLost(self) -> None:
        """
        Called when the client has ended its side: complete requests are answered, then the connection is closed.

        It may be called more than once, since each read after the end finds the end again.
        """
        self._has_client_ended = True
        if self.phase is CLOSING:
            self.transport.loseConnection()
        else:
            self._close_if_answered()

    def writeConnectionLost(self) -> None:
        """Called when our side has ended, as `loseConnection` requested."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # twisted's own is untyped
        """Remove the connection."""
        self.site.channels.discard(self)
        self.site.unverified.release(self)
        super().connectionLost(reason)
        if self.site.closes and not (self.owes_nothing and self.site.channels):
            self.site.check_quiet()

    # From the parent's parser

    def lineReceived(self, line: bytes) -> None:
        """
        Process one line of the head. The parent's method processes only the request line.

        It would keep each header until the next line, which may continue it (``obs-fold``); such a line is refused
        here, so that a header is complete when it comes.
        """
        if line[:1] in _FOLDS:
            self._refuse_head(MessageMalformed("no line of the head may begin with a space; write it as one line"))
            return
        if not self.requests:
            super().lineReceived(line)
            return
        self._receivedHeaderSize += len(line)
        if self._receivedHeaderSize > self.totalHeadersSize:
            self._refuse_headers()
        elif line:
            self._header = line
            try:
                self.headerReceived(line)
            except ValueError:  # a length of thousands of digits is malformed, not a defect
                self._respondToBadRequestAndDisconnect()
        else:
            self.allHeadersReceived()
            if self.length == 0:
                self.allContentReceived()
            else:
                self.setRawMode()

    def headerReceived(self, line: bytes) -> bool:
        """Process one header as the parent does, except for its ``Headers``, which are made when a page reads them."""
        header = header_of(line)
        if header is None:
            self._respondToBadRequestAndDisconnect()
            return False
        name, value = header
        framing = _FRAMING.get(name)
        if framing is not None and not self._maybeChooseTransferDecoder(framing, value):
            return False
        self.requests[-1].headers.append(header)
        self._receivedHeaderCount += 1
        if self._receivedHeaderCount > self.maxHeaders:
            self._refuse_headers()
            return False
        return True

    def _wait_for_more(self, length: int) -> None:
        """
        Start the time of a head or a body that is incomplete.

        :param length: number of bytes received; those of a head are counted.
        """
        is_head = self.phase is HEADERS
        if not self._is_timed:
            self._enter(self.phase, self.site.limits.headers if is_head else self.site.limits.body)
        if not is_head:
            return
        try:
            if has_bare_end(self._buffer):
                raise MessageMalformed("each line of the head must end in CRLF, got a lone CR or LF")
            self.site.unverified.grow(self, length)
        except Refused as error:
            self._refuse_head(error)

    def allHeadersReceived(self) -> None:
        """Accept or refuse the request; a refused request that waits for ``100 Continue`` never gets it."""
        request = self.requests[-1]
        self._header = b""
        if self.unverified:
            self.site.unverified.release(self)
        headers = request.lower_headers()
        self.persistent = not self.is_surplus and is_persistent(self._version, headers.get("connection"))
        request.begin(self._command, self._path, self._version, self.length)
        if self.phase is CLOSING:
            self.clearLineBuffer()
            return
        self.phase = BODY
        self._is_timed = False
        if self.length != 0:
            if self._receivedHeaderSize > LARGE_HEAD and request.answered is None:
                self._count_head(request)
            if headers.get("expect", "").lower() == "100-continue" and self._version == b"HTTP/1.1":
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _count_head(self, request: HarnRequest) -> None:
        """Keep counting a large head while its body is read."""
        try:
            request.count_unverified(self._receivedHeaderSize)
        except Refused as error:
            request.cut_off(request.problem(error))

    def allContentReceived(self) -> None:
        """Called when the request is complete: the client's time stops."""
        # Only the decoder of chunks has them, and only some releases keep them.
        trailers = getattr(self._transferDecoder, "_trailerHeaders", None)
        if trailers:
            try:
                check_trailers(trailers)
            except Refused as error:
                self._end_body(self.requests[-1].problem(error))
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
        """Refuse a request line or header that is too long."""
        if self.phase is CLOSING:
            return
        if not self.requests:
            self._refuse_early(problem(_URI_TOO_LONG, f"the request line is longer than {self.MAX_LENGTH} bytes"))
        else:
            self._refuse_headers()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self.phase is CLOSING:
            return
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self._refuse_headers()
        elif self.phase is BODY:
            self._end_body(self.requests[-1].problem(MessageMalformed("the chunks of the body are malformed")))
        elif self._header:
            self._refuse_head(refusal_of(self._header))
        else:
            self._refuse_head(
                MessageMalformed("the first line must be that of an HTTP/1.1 request: method, target and version")
            )

    # Ending

    def loseConnection(self) -> None:
        """
        Close so that our last answer is not lost.

        A socket closed while bytes are unread resets the connection, and the reset can overtake the answer. So only our
        side is ended, further bytes are discarded, and the client closes, within a time and a size. A client that has
        ended its side sends nothing more.
        """
        if self.phase is CLOSING:
            return
        limits = self.site.limits
        self._enter(CLOSING, limits.grace if self.site.closes else limits.linger)
        if self.read_by != inf:
            self.deadline = self.read_by  # a client with a long unread answer has the time to read it
        self._gone_by = self.since + self._limited(limits.body)
        is_plain = ITCPTransport.providedBy(self.transport) and not ISSLTransport.providedBy(self.transport)
        if is_plain and not self._has_client_ended:
            self.transport.unregisterProducer()
            self.transport.resumeProducing()  # it may have been paused, and further bytes must be discarded
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()

    def _close_if_answered(self) -> None:
        """Close for a client that has ended its side; an incomplete request will never be complete."""
        if self._busyReceiving:
            return  # the bytes may contain another complete request
        if self.phase is not HANDLING:
            self.loseConnection()
        elif not any(self._dataBuffer):
            self.persistent = False  # the answer then announces that it is the last

    def give_way(self) -> None:
        """Called when the head is the slowest, and its memory is needed."""
        self._refuse_early(
            problem_of(BodyTimedOut("the headers came too slowly, and others need their room", retry_after=1))
        )

    def give_up_place(self) -> None:
        """Called when its descriptor is needed, and it was waiting."""
        if self.phase is CLOSING:
            self.transport.abortConnection()
        elif self.phase is BODY:
            self._end_body(problem_of(Saturated(NO_ROOM, retry_after=1)))
        else:
            # Ended as for a client that has ended its side: without waiting, so that the descriptor is free.
            self._has_client_ended = True
            if self.phase is HEADERS or self.is_surplus:
                self._refuse_early(problem_of(Saturated(NO_ROOM, retry_after=1)))
            else:
                self.loseConnection()

    def _end_body(self, answer: Response) -> None:
        """Answer for a body that will not be complete, unless the request was answered before."""
        if self.requests:
            self.requests[-1].cut_off(answer)
        self.clearLineBuffer()
        self.loseConnection()

    def _refuse_headers(self) -> None:
        detail = (
            f"the headers are larger than {self.totalHeadersSize} bytes, more than {self.maxHeaders}, or one of "
            f"them is longer than {self.MAX_LENGTH}"
        )
        self._refuse_early(problem(_HEADERS_TOO_LARGE, detail))

    def _refuse_head(self, error: Refused) -> None:
        """Answer a head that cannot be read, log that, and close."""
        answer = problem_of(error)
        if answer.status in LOGGED:
            self.note_refusal(NO_TARGET, answer.status, str(error))
        self._refuse_early(answer)

    def _refuse_early(self, answer: Response) -> None:
        """Answer bytes that are not a request, or not yet a complete one, and close."""
        self.site.unverified.release(self)
        self.clearLineBuffer()
        self.write(answer.last_bytes(self.site.date_header()))
        self.site.metrics.http_request(self.site.unknown_endpoint, "other", answer.status, 0.0, 0)
        self.loseConnection()
