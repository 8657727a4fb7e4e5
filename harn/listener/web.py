"""
Requests for Klein: a ``twisted.web.server.Request`` of a complete request, for the pages that Klein renders.

`WebStream` is to such a request what a stream of HTTP/2 is in ``twisted.web``: the methods that it calls on its
channel, which are public. What a page writes is collected, and sent in one write with its length.
"""

# ruff: noqa: N802, N815
# Names are those of twisted.web, whose own functions are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.interfaces import IAddress, IProducer, ISSLTransport
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http_headers import Headers
from twisted.web.pages import notFound
from twisted.web.resource import IResource

if TYPE_CHECKING:
    from harn.listener.request import HarnRequest

_OURS = frozenset((b"server", b"date", b"content-type", b"content-length", b"transfer-encoding", b"connection"))
"""Headers that every answer has, or that depend on the connection: `HarnRequest.send` writes them."""


def render(request: HarnRequest) -> None:
    """
    Render the resource of the request's place, in the tree that the request began with.

    HEAD is rendered as GET, since the body is left out when the answer is sent; and as of HTTP/1.0, so that a body is
    not cut into chunks.
    """
    web = request.web = WebRequest(request)
    for name, value in request.headers.items():
        web.requestHeaders.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
    web.gotLength(len(request.body))
    web.handleContentChunk(request.body)
    web.requestReceived(b"GET" if request.method == b"HEAD" else request.method, request.uri, b"HTTP/1.0")


class WebRequest(server.Request):
    """
    A request as Klein renders it.

    :ivar request: the request as it came; a page may answer with its `HarnRequest.send`.
    """

    defaultContentType = b"text/plain; charset=utf-8"

    def __init__(self, request: HarnRequest) -> None:
        self.request = request
        super().__init__(WebStream(request), parsePOSTFormSubmission=False)

    def getRequestHostname(self) -> bytes:
        """Return one name for all: no route depends on ``Host``."""
        return b"harn"

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer 500 after an exception in our code; the client gets no detail."""
        self.request.failed(reason)
        return reason

    def client_gone(self, reason: Failure) -> None:
        """Called when the connection is lost: `notifyFinish` fails."""
        self.connectionLost(reason)

    def end(self) -> None:
        """Called when the answer is sent: `notifyFinish` fires."""
        if not self.finished:
            self.finish()


class PageSite:
    """The methods that a request calls on its site."""

    displayTracebacks = False

    def getContentFile(self, length: int | None) -> BinaryIO:
        """Return where the body is kept: in memory, never in a temporary file."""
        return BytesIO()

    def getResourceFor(self, web: WebRequest) -> IResource:
        """Return the leaf of the request's tree for its place: no traversal, no consumed segments."""
        request = web.request
        resource = request.tree.resource(request.place)
        return notFound() if resource is None else resource


_SITE = PageSite()


class WebStream:
    """
    The methods that a request calls on its channel.

    :ivar transport: none: a page writes to its request.
    """

    transport = None
    site = _SITE

    def __init__(self, request: HarnRequest) -> None:
        self._request = request
        self._status = 200
        self._content_type = b""
        self._headers = b""
        self._body: list[bytes] = []

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Keep the status and the headers."""
        self._status = int(code)
        self._content_type = (headers.getRawHeaders(b"content-type") or [b"text/plain; charset=utf-8"])[0]
        lines = [
            b"%s: %s\r\n" % (name, value)
            for name, values in headers.getAllRawHeaders()
            if name.lower() not in _OURS
            for value in values
        ]
        self._headers = b"".join(lines)

    def write(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._body.append(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Keep pieces of the body."""
        self._body.extend(iovec)

    def requestDone(self, web: server.Request) -> None:
        """Send the written response, unless the request is answered already."""
        self._request.send(self._status, b"".join(self._body), self._content_type, self._headers)

    def loseConnection(self) -> None:
        """Close the connection after what is written so far."""
        channel = self._request.channel
        if channel is not None:
            channel.end()

    def abortConnection(self) -> None:
        """Close the connection immediately."""
        channel = self._request.channel
        if channel is not None:
            channel.transport.abortConnection()

    def getPeer(self) -> IAddress | None:
        """Return the client's address."""
        channel = self._request.channel
        return None if channel is None else channel.transport.getPeer()

    def getHost(self) -> Any:
        """Return our address of the connection."""
        channel = self._request.channel
        return None if channel is None else channel.transport.getHost()

    def isSecure(self) -> bool:
        """Return whether the connection is one of TLS."""
        channel = self._request.channel
        return channel is not None and ISSLTransport.providedBy(channel.transport)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Accept a producer; one that waits to be asked is asked until it is done."""
        self._producer: IProducer | None = producer
        while not streaming and self._producer is producer:
            producer.resumeProducing()  # type: ignore[attr-defined]

    def unregisterProducer(self) -> None:
        """Called when the producer is done."""
        self._producer = None
