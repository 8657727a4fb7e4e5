"""
One connection: a request is accepted or refused when its headers are complete; its time and size are limited.

``twisted.web`` passes on a request only when its body is complete. This protocol acts before the body: it sends 404,
405, 413 and 503 at once, sends ``100 Continue`` for accepted requests alone, and leases the routes that are live when
the headers are complete. It reads one request at a time. The bytes of pipelined requests are kept, up to `LATER`, until
the present request is answered.
"""

# ruff: noqa: N802
# Names are those of twisted, whose own functions are not all typed.
# mypy: allow-untyped-calls
from __future__ import annotations

import socket
from math import inf

from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.errors import BodyTimedOut, MessageMalformed, Refused, Saturated
from harn.listener.body import Body, ChunkedBody, SizedBody
from harn.listener.framing import is_persistent
from harn.listener.head import PartialHead, RequestHead, parse_head, split_head
from harn.listener.phases import BODY, CLOSING, HANDLING, HEADERS, IDLE, NO_ROOM, STREAMING, PhasedChannel
from harn.listener.problems import Response, problem_of
from harn.listener.refusals import LOGGED, NO_TARGET
from harn.listener.request import HarnRequest
from harn.listener.unverified import network_of

LARGE_HEAD = 4096
"""Bytes of a head from which its size is counted as unverified while the body is read."""
LATER = 16 * 1024
"""Bytes of pipelined requests above which reading is paused until the present request is answered."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@implementer(IHalfCloseableProtocol)
class HarnChannel(PhasedChannel):
    """
    A connection of `harn.listener.site.HarnSite`.

    :ivar is_own: whether it is a connection of the listener for the server's own pages; see
        `harn.listener.admin_port`.
    :ivar unverified: the bytes of an incomplete head, as counted by `harn.listener.unverified`.
    """

    unverified = 0
    is_own = False

    _request: HarnRequest | None = None
    _head: PartialHead | None = None
    _body: Body | None = None
    _later = b""
    _is_reading = False  # whether bytes are being processed
    _is_paused = False  # whether the transport reads nothing
    _is_full = False  # whether the send buffer is full
    _socket: socket.socket | None = None  # responses are sent to it directly while the send buffer is empty
    _discarded = 0
    _gone_by = inf
    _has_client_ended = False
    _source: str | None = None

    @property
    def source(self) -> str:
        """Return the client's IPv4 address, or the network (64 bits) of its IPv6 address; empty if it has neither."""
        if self._source is None:
            self._source = network_of(self.address)
        return self._source

    @property
    def address(self) -> str:
        """Return the client's address; empty if it has none."""
        host: str = getattr(self.transport.getPeer(), "host", "")
        return host

    def note_refusal(self, target: str, status: int, detail: str) -> None:
        """Log a refusal of this client, within bounds; see `Refusals.note`."""
        self.site.refusals.note(target, status, detail, self.address, self.source)

    # From the transport

    def connectionMade(self) -> None:
        """Start the first phase with its deadline."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._send_directly()
        site = self.site
        self._enter(IDLE, site.limits.idle)
        self.owes_nothing = site.quiescing
        site.channels.add(self)
        if not self.is_own and not site.connection_limit.admit():
            self.is_surplus = True
            self._enter(IDLE, site.limits.grace)

    def dataReceived(self, data: bytes) -> None:
        """Process the bytes of requests; after the last response, discard them."""
        phase = self.phase
        if phase is CLOSING or phase is STREAMING:
            self._discard(len(data))
        elif phase is HANDLING or self._later or self._is_reading:
            self._later += data
            self._regulate()
        else:
            self._read(data)

    def pauseProducing(self) -> None:
        """Called when the send buffer is full: no request is read until the client has read its answers."""
        super().pauseProducing()
        self._is_full = True
        self._regulate()

    def resumeProducing(self) -> None:
        """Called when the send buffer is empty again."""
        super().resumeProducing()
        self._is_full = False
        self._send_directly()
        self._read_later()

    def readConnectionLost(self) -> None:
        """
        Called when the client has closed its sending side: answer complete requests, then close the connection.

        The reactor may call this more than once, since each further read returns end-of-file again.
        """
        self._has_client_ended = True
        if self.phase is CLOSING:
            self.transport.loseConnection()
        else:
            self._close_if_answered()

    def writeConnectionLost(self) -> None:
        """Called when our sending side is closed, as `end` requested."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # twisted's own has a default
        """Remove the connection."""
        site = self.site
        site.channels.discard(self)
        site.unverified.release(self)
        request, self._request = self._request, None
        self._later, self._socket = b"", None
        if request is not None:
            request.client_gone(reason)
        if site.closes and not (self.owes_nothing and site.channels):
            site.check_quiet()

    # Reading

    def _read(self, data: bytes) -> None:
        """Process bytes until none are left or a request is being handled; keep the rest."""
        self._is_reading = True
        while data:
            phase = self.phase
            if phase is BODY:
                data = self._read_body(data)
            elif phase is HEADERS or (phase is IDLE and not self._is_full):
                data = self._read_head(data)
            else:
                break
        self._is_reading = False
        phase = self.phase
        if data and phase is not CLOSING:
            self._later = data + self._later
            self._regulate()
        elif (phase is HEADERS or phase is BODY) and not self._is_timed:
            self._enter(phase, self.site.limits.headers if phase is HEADERS else self.site.limits.body)
        if self._has_client_ended:
            self._close_if_answered()

    def _read_later(self) -> None:
        """Read the next request if its bytes have arrived already, and resume the transport."""
        if self._later and not self._is_reading and not self._is_full and self.phase is IDLE:
            data, self._later = self._later, b""
            self._read(data)
        if self._is_paused:
            self._regulate()

    def _regulate(self) -> None:
        """Pause the transport while the send buffer is full or more than `LATER` bytes are kept; else resume it."""
        pauses = self.phase is not CLOSING and (self._is_full or len(self._later) > LATER)
        if pauses != self._is_paused:
            self._is_paused = pauses
            if pauses:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _read_head(self, data: bytes) -> bytes:
        """Begin a request if its head is complete, and return the bytes after the head."""
        if self.phase is IDLE:
            self._has_spoken = True
            self.phase = HEADERS
            self._is_timed = False
        try:
            found = split_head(data) if self._head is None else self._head.add(data)
            if found is None:
                if self._head is None:
                    self._head = PartialHead()
                    self._head.add(data)
                self.site.unverified.grow(self, len(data))
                return b""
            head = parse_head(found[0])
        except Refused as error:
            self._refuse_head(error)
            return b""
        return self._begin(head, found[1])

    def _begin(self, head: RequestHead, rest: bytes) -> bytes:
        """Accept or refuse the request; return the part of ``rest`` that follows its body, if the body came with it."""
        self._head = None
        if self.unverified:
            self.site.unverified.release(self)
        headers, line = head.headers, head.line
        self.persistent = line.is_kept_alive and not self.is_surplus
        if "connection" in headers:
            self.persistent = self.persistent and is_persistent(line.version, headers["connection"])
        request = self._request = HarnRequest(self, head)
        request.begin()
        if self.phase is CLOSING:
            return rest
        self._is_timed = False
        length = request.length
        if length == 0 or (length is not None and len(rest) >= length and "expect" not in headers):  # most come whole
            self.phase = HANDLING
            self.deadline = inf
            request.complete(rest[:length])
            return rest[length:]
        self.phase = BODY
        if head.size > LARGE_HEAD and request.answered is None:
            self._count_head(request, head.size)
        if "expect" in headers and request.answered is None:
            self._continue(headers["expect"], line.version)
        return rest

    def _continue(self, expected: str, version: bytes) -> None:
        """Send ``100 Continue`` for an accepted request if its client expects that."""
        if expected.lower() == "100-continue" and version == b"HTTP/1.1":
            self.write(_CONTINUE)

    def _count_head(self, request: HarnRequest, size: int) -> None:
        """Count a large head as unverified while its body is read."""
        try:
            request.count_unverified(size)
        except Refused as error:
            request.cut_off(request.problem(error))

    def _read_body(self, data: bytes) -> bytes:
        """Pass the bytes of the body to the request, and return those after the body."""
        request, body = self._request, self._body
        assert request is not None
        if body is None:
            length = request.length
            if length is not None and len(data) >= length:  # most come in one piece
                self._complete(request, data[:length])
                return data[length:]
            body = self._body = ChunkedBody() if length is None else SizedBody(length)
        try:
            piece, rest = body.feed(data)
        except MessageMalformed as error:
            self._end_body(request.problem(error))
            return b""
        request.receive(piece)
        if body.is_complete:
            self._complete(request)
        return rest

    def _complete(self, request: HarnRequest, body: bytes | None = None) -> None:
        """Serve the request, and stop its deadline; ``body`` is the whole body if it arrived in one piece."""
        self._body = None
        if self.phase is not CLOSING:
            self.phase = HANDLING
            self.deadline = inf
            if self._is_timed:  # the body arrived later than the headers
                request.received_at = self.site.wall.seconds()
            request.complete(body)

    def _discard(self, length: int) -> None:
        """Discard bytes received after the last response, up to a time and a size."""
        self._discarded += length
        limits = self.site.limits
        self.deadline = max(self.deadline, min(self.site.clock.seconds() + self._limited(limits.linger), self._gone_by))
        if self._discarded > limits.linger_bytes:
            self.transport.abortConnection()

    # From the request

    def write(self, data: bytes) -> None:
        """Send bytes, to the socket directly if possible, which saves a turn of the reactor."""
        if self._socket is not None:
            try:
                sent = self._socket.send(data)
            except OSError:  # the socket is full, or the connection lost, which the transport will detect
                sent = 0
            if sent == len(data):
                return
            self._socket = None  # until the transport's send buffer, which gets the rest, is empty again
            data = data[sent:]
        self.transport.write(data)

    def _send_directly(self) -> None:
        """Use the socket's buffer if nothing, such as TLS, is between the socket and this protocol."""
        if isinstance(self.transport, Connection):
            self._socket = self.transport.getHandle()

    def request_done(self) -> None:
        """Called when a complete request is answered: wait for the next request, or close."""
        self._request = None
        if self.phase is CLOSING or self.phase is STREAMING:
            return
        if not self.persistent:
            self.end()
            return
        self._enter(IDLE, self.site.limits.idle)
        if self._later or self._is_paused:
            self._read_later()
        if self._has_client_ended:
            self._close_if_answered()

    # Ending

    def end(self) -> None:
        """
        Close the connection so that the last response is not lost.

        A socket closed with unread bytes resets the connection, and the client may receive the reset before the
        response. So only our sending side is closed, and bytes are discarded, up to a time and a size, until the client
        closes. A client that has closed its sending side sends nothing more.
        """
        if self.phase is CLOSING:
            return
        limits = self.site.limits
        self._enter(CLOSING, limits.grace if self.site.closes else limits.linger)
        if self.read_by != inf:
            self.deadline = self.read_by  # the client has time to read a long response
        self._gone_by = self.since + self._limited(limits.body)
        self._later = b""
        transport = self.transport
        transport.unregisterProducer()
        self._regulate()  # the transport may be paused, and further bytes must be discarded
        is_plain = ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)
        if is_plain and not self._has_client_ended:
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _close_if_answered(self) -> None:
        """Close if the client has closed its sending side and no complete request is left to answer."""
        if self._is_reading or (self._is_full and self._later):
            return  # the bytes may contain another complete request
        if self.phase is not HANDLING:
            self.end()
        elif not self._later:
            self.persistent = False  # the response then has ``Connection: close``

    def give_way(self) -> None:
        """Called when memory is needed and the head on this connection is the slowest: refuse it and close."""
        self._refuse_early(
            problem_of(BodyTimedOut("the headers came too slowly, and others need their room", retry_after=1))
        )

    def give_up_place(self) -> None:
        """Called when a descriptor is needed and no request is handled here: close."""
        if self.phase is CLOSING:
            self.transport.abortConnection()
        elif self.phase is BODY:
            self._end_body(problem_of(Saturated(NO_ROOM, retry_after=1)))
        else:
            # Close as if the client had closed its sending side: without waiting, so that the descriptor is free.
            self._has_client_ended = True
            if self.phase is HEADERS or self.is_surplus:
                self._refuse_early(problem_of(Saturated(NO_ROOM, retry_after=1)))
            else:
                self.end()

    def _end_body(self, answer: Response) -> None:
        """Send a response to a request whose body will not be complete, unless it was answered before."""
        if self._request is not None:
            self._request.cut_off(answer)
        self.end()

    def _refuse_head(self, error: Refused) -> None:
        """Send the response to an invalid head, log the refusal, and close."""
        answer = problem_of(error)
        if answer.status in LOGGED:
            self.note_refusal(NO_TARGET, answer.status, str(error))
        self._refuse_early(answer)

    def _refuse_early(self, answer: Response) -> None:
        """Send a response to bytes that are not a complete request, and close."""
        self.site.unverified.release(self)
        self._head = None
        self.write(answer.last_bytes(self.site.date_header(self.site.clock.seconds())))
        self.site.metrics.http_request(self.site.unknown_endpoint, "other", answer.status, 0.0, 0)
        self.end()
