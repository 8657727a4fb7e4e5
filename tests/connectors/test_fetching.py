"""Documents over HTTP, from a server on this machine: limits on size and time, and no redirects."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface.verify import verifyObject

from harn.connectors.fetching import LARGEST, DocumentUnavailable, HttpFetcher, IFetcher


class Documents(Resource):
    """Answers by path."""

    isLeaf = True  # noqa: N815 - twisted's name

    def render_GET(self, request: Any) -> Any:
        """See `Resource`."""
        if request.path == b"/good":
            return b'{"keys": []}'
        if request.path == b"/large":
            return b"x" * (LARGEST + 1)
        if request.path == b"/moved":
            request.redirect(b"/good")
            return b""
        if request.path == b"/cut":
            request.setHeader(b"content-length", b"100")
            request.write(b"{")
            request.transport.loseConnection()
            return NOT_DONE_YET
        request.setResponseCode(404)
        return b"no"


class FetchingTests(TestCase):
    def setUp(self) -> None:
        net: Any = reactor
        self.port = net.listenTCP(0, Site(Documents()), interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.fetcher = HttpFetcher(reactor)
        verifyObject(IFetcher, self.fetcher)

    def url(self, path: str) -> str:
        """Return the URL of a document."""
        return f"http://127.0.0.1:{self.port.getHost().port}/{path}"

    async def failing(self, url: str) -> DocumentUnavailable:
        """See that a document cannot be had; return the failure."""
        with self.assertRaises(DocumentUnavailable) as caught:
            await self.fetcher.fetch(url)
        return caught.exception

    async def refused(self, path: str) -> str:
        """See that a document cannot be had; return why."""
        return str(await self.failing(self.url(path)))

    def test_documents(self) -> Deferred[None]:
        """A document is returned whole; an error, a redirect, too much and a cut are failures that say so."""

        async def run() -> None:
            self.assertEqual(await self.fetcher.fetch(self.url("good")), b'{"keys": []}')
            self.assertIn("answered 404", await self.refused("none"))
            self.assertIn("answered 302", await self.refused("moved"))
            self.assertIn("more than", await self.refused("large"))
            self.assertIn("/cut", await self.refused("cut"))

        return Deferred.fromCoroutine(run())

    def test_nobody_listens(self) -> Deferred[None]:
        """A host that does not answer is a failure that names the URL."""

        async def run() -> None:
            url = "http://127.0.0.1:1/x"
            error = await self.failing(url)
            self.assertIn(url, str(error))

        return Deferred.fromCoroutine(run())
