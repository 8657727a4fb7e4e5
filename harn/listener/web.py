"""
Requests for Klein: a ``twisted.web.server.Request`` made from a complete request.

`WebStream` stands in for the channel of such a request, as a stream of HTTP/2 does in ``twisted.web``: it has the
public methods that the request calls. The body is collected, and sent in one write with its length.
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
"""Header fields that every response has, or that depend on the connection: `HarnRequest.send` writes them."""


def render(request: HarnRequest) -> None:
    """
    Render the Klein app of the request's place, in the tree of the request.

    HEAD is rendered as GET, as the body is left out when the response is sent. The version is HTTP/1.0, so that
    ``twisted.web`` does not chunk the body.
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

    :ivar request: the original request; a page may send the response by its `HarnRequest.send`.
    """

    defaultContentType = b"text/plain; charset=utf-8"

    def __init__(self, request: HarnRequest) -> None:
        self.request = request
        super().__init__(WebStream(request), parsePOSTFormSubmission=False)

    def getRequestHostname(self) -> bytes:
        """Return a constant name, as no route depends on ``Host``."""
        return b"harn"

    def processingFailed(self, reason: Failure) -> Failure:
        """Send 500 after an exception in our code, without detail for the client."""
        self.request.failed(reason)
        return reason

    def client_gone(self, reason: Failure) -> None:
        """Called when the connection is lost: make the Deferreds of `notifyFinish` fail."""
        self.connectionLost(reason)

    def end(self) -> None:
        """Called when the response is sent: fire the Deferreds of `notifyFinish`."""
        if not self.finished:
            self.finish()


class PageSite:
    """The methods that a request calls on its site."""

    displayTracebacks = False

    def getContentFile(self, length: int | None) -> BinaryIO:
        """Return the file for the body: one in memory, never a temporary file."""
        return BytesIO()

    def getResourceFor(self, web: WebRequest) -> IResource:
        """Return the leaf resource of the request's place: there is no traversal, and no segment is consumed."""
        request = web.request
        resource = request.tree.resource(request.place)
        return notFound() if resource is None else resource


_SITE = PageSite()


class WebStream:
    """
    The methods that a request calls on its channel.

    :ivar transport: None, as a page writes to its request.
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
        """Send the collected response, unless the request is answered already."""
        self._request.send(self._status, b"".join(self._body), self._content_type, self._headers)

    def loseConnection(self) -> None:
        """Close the connection after the bytes written so far."""
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
        """Return the server's address of the connection."""
        channel = self._request.channel
        return None if channel is None else channel.transport.getHost()

    def isSecure(self) -> bool:
        """Return whether the connection uses TLS."""
        channel = self._request.channel
        return channel is not None and ISSLTransport.providedBy(channel.transport)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Accept a producer; a pull producer is resumed until it is done."""
        self._producer: IProducer | None = producer
        while not streaming and self._producer is producer:
            producer.resumeProducing()  # type: ignore[attr-defined]

    def unregisterProducer(self) -> None:
        """Called when the producer is done."""
        self._producer = None
