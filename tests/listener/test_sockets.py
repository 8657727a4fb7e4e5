"""What only a real socket shows: answers that are not lost, connections that are kept."""

from __future__ import annotations

from math import inf

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from harn.listener.endpoint import Bind, listen
from harn.listener.pages import Page
from harn.listener.phases import Limits
from harn.listener.problems import Response
from harn.listener.request import HarnRequest
from harn.testing.clients import SocketClient, parse_answers, request_bytes
from tests.listener.world import World, signed_post


class LongPage(Page):
    """A page that no socket takes at once."""

    def read(self, request: HarnRequest) -> Response:
        """Return 3 MB."""
        return Response(200, b"x" * 3_000_000, b"text/plain")


class SocketTests(TestCase):
    def setUp(self) -> None:
        self.world = World(Limits(linger=0.5, headers=0.5), clock=reactor)
        self.listening = listen(reactor, Bind("127.0.0.1", 0), self.world.site)
        self.clients: list[SocketClient] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for client in self.clients:
            if client.transport is not None:
                client.transport.abortConnection()  # type: ignore[attr-defined]
        await self.listening.port.stopListening()
        while self.world.site.channels:
            await self.pause()
        self.world.site.doStop()
        self.world.site.refusals.close()

    def pause(self, seconds: float = 0) -> Deferred[None]:
        """Run a turn of the reactor."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(seconds, turned.callback, None)
        return turned

    async def connect(self) -> SocketClient:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.listening.bind.port)
        client = await endpoint.connect(Factory.forProtocol(SocketClient))
        assert isinstance(client, SocketClient)
        self.clients.append(client)
        return client

    async def test_kept_across_swaps(self) -> None:
        """One connection serves requests before, between and after swaps, and none of them fails."""
        client = await self.connect()
        for generation in range(2, 22):
            client.send(signed_post("/hooks/gh"))
            answers = await client.until_answers(generation - 1)
            self.assertEqual((answers[-1].status, answers[-1].headers["harn-generation"]), (200, str(generation - 1)))
            self.world.serve(generation, self.world.gh)

    async def test_answer_to_a_large_body_is_not_lost(self) -> None:
        """Who sends all of a body that is too large before it reads still reads 413, and a clean end."""
        client = await self.connect()
        body = b"x" * (12 * 1024 * 1024)
        client.send(request_bytes("POST", "/hooks/gh", {}, body))
        (answer,) = await client.until_answers(1)
        self.assertEqual((answer.status, answer.headers["connection"]), (413, "close"))
        await self.assert_clean_end(client)

    async def test_answer_to_chunks_is_not_lost(self) -> None:
        """The same for a body in chunks."""
        self.world.configure(max_body_bytes=1000)
        client = await self.connect()
        chunk = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
        client.send(request_bytes("POST", "/hooks/gh", {"Transfer-Encoding": "chunked"}) + chunk * 20 + b"0\r\n\r\n")
        (answer,) = await client.until_answers(1)
        self.assertEqual(answer.status, 413)
        await self.assert_clean_end(client)

    async def assert_clean_end(self, client: SocketClient) -> None:
        """Assert that the server ends the connection without a reset."""
        await client.lost
        assert client.reason is not None
        self.assertTrue(client.reason.check(ConnectionDone), client.reason)

    async def test_half_closed(self) -> None:
        """A client that ends its side after its requests gets every answer, and a clean end."""
        self.world.store.writer.held = True
        client = await self.connect()
        client.send(signed_post("/hooks/gh") * 2)
        client.transport.loseWriteConnection()  # type: ignore[union-attr]
        while not self.world.store.writer.has_work:
            await self.pause()
        self.world.store.writer.release()
        await self.assert_clean_end(client)
        self.assertEqual([answer.status for answer in parse_answers(bytes(client.data))], [200, 200])
        self.assertEqual(self.world.site.channels, set())

    async def test_client_that_goes(self) -> None:
        """A client that goes while it waits is noticed with its answer; one that only was idle, at once."""
        self.world.store.writer.held = True
        waiting, idle = await self.connect(), await self.connect()
        waiting.send(signed_post("/hooks/gh"))
        while not self.world.store.writer.has_work:
            await self.pause()
        for client in (waiting, idle):
            client.transport.loseConnection()  # type: ignore[union-attr]
        while len(self.world.site.channels) > 1:
            await self.pause()
        self.world.store.writer.release()
        while self.world.site.channels:
            await self.pause()
        self.assertEqual(self.world.site.in_flight, 0)

    async def test_long_answers(self) -> None:
        """Answers that the socket does not take at once arrive whole and in their order, and later ones after them."""
        self.world.site.mount("/long", LongPage("/long"))
        client = await self.connect()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        get = request_bytes("GET", "/long") + request_bytes("GET", "/health")
        client.send(get * 2)
        channel = next(iter(self.world.site.channels))
        while channel.read_by == inf:  # until the send buffer is full
            await self.pause()
        client.transport.resumeProducing()  # type: ignore[union-attr]
        answers = await client.until_answers(4)
        self.assertEqual([len(answer.body) for answer in answers], [3_000_000, 2, 3_000_000, 2])
        client.send(signed_post("/hooks/gh"))
        self.assertEqual((await client.until_answers(5))[-1].status, 200)

    async def test_slow_client(self) -> None:
        """A client that never ends its headers gets 408 and the end of the connection."""
        client = await self.connect()
        client.send(b"POST /hooks/gh HTTP/1.1\r\n")
        await self.assert_clean_end(client)
        self.assertEqual(parse_answers(bytes(client.data))[0].status, 408)

    async def test_expect(self) -> None:
        """A client that waits for 100 Continue gets it, then its answer."""
        client = await self.connect()
        whole = signed_post("/hooks/gh", Expect="100-continue")
        head, separator, body = whole.partition(b"\r\n\r\n")
        client.send(head + separator)
        await client.until_answers(1)
        self.assertEqual(client.data, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(body)
        answers = await client.until_answers(2)
        self.assertEqual(answers[-1].status, 200)

    async def test_quiesce(self) -> None:
        """Going down, the answer in flight arrives whole before the wait has ended."""
        self.world.store.writer.held = True
        client = await self.connect()
        client.send(signed_post("/hooks/gh"))
        while not self.world.store.writer.has_work:
            await self.pause()
        quiet = self.world.site.quiesce()
        self.assertFalse(quiet.called)
        self.world.store.writer.release()
        await quiet
        self.assertEqual(parse_answers(bytes(client.data))[0].status, 200)
        await self.assert_clean_end(client)
