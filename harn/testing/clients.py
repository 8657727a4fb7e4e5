"""
HTTP clients for tests: through a whole site without a socket, byte for byte, or over a real one.

`memory_client` is treq itself, its bytes carried to a `harn.listener.site.HarnSite` and back in memory, so that real
parsing, routing, authentication and status codes are tested. `Wire` is one connection as the server sees it, for tests
of single bytes and their timing. `SocketClient` is for tests that need a socket.
"""

# twisted's testing tools are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from treq.client import HTTPClient
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IConsumer, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

SERVER = IPv4Address("TCP", "127.0.0.1", 8080)
CLIENT = IPv4Address("TCP", "127.0.0.1", 31337)


class _Transport(FakeTransport):
    """A transport in memory; closing its writing side closes it, since iosim has no half-closed connections."""

    def loseWriteConnection(self) -> None:
        self.loseConnection()


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class MemoryNetwork:
    """
    A network in memory with one server on it.

    :param factory: the server's site.
    :param clock: the time of both sides.
    """

    def __init__(self, factory: IProtocolFactory, clock: Clock) -> None:
        self._factory = factory
        self._clock = clock
        self._pumps: list[IOPump] = []

    def endpointForURI(self, uri: Any) -> MemoryNetwork:
        """Return this network for every URI."""
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - twisted's name
        """Connect a client."""
        server = self._factory.buildProtocol(CLIENT)
        client = protocolFactory.buildProtocol(SERVER)
        assert server is not None
        assert client is not None
        pump = connect(
            server,
            _Transport(server, isServer=True, hostAddress=SERVER, peerAddress=CLIENT),
            client,
            _Transport(client, isServer=False, hostAddress=CLIENT, peerAddress=SERVER),
            clock=self._clock,
        )
        self._pumps.append(pump)
        return succeed(client)

    @property
    def connections(self) -> int:
        """The number of connections that were ever made."""
        return len(self._pumps)

    def flush(self) -> None:
        """Transfer bytes until none are left."""
        for pump in self._pumps:
            pump.flush()


@implementer(IBodyProducer)
class _WholeBody:
    """A body that is written in one piece: treq's own body writes in pieces, on the global reactor."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: everything has been written."""

    def resumeProducing(self) -> None:
        """Do nothing: everything has been written."""

    def stopProducing(self) -> None:
        """Do nothing: everything has been written."""


class MemoryClient:
    """
    treq over a `MemoryNetwork`; call `flush` after anything that makes either side write.

    Its connections are kept alive, and its responses are treq's.
    """

    def __init__(self, network: MemoryNetwork, clock: Clock) -> None:
        self.network = network
        pool = HTTPConnectionPool(clock, persistent=True)
        agent = Agent.usingEndpointFactory(clock, network, pool)
        self._treq = HTTPClient(agent, data_to_body_producer=_WholeBody)

    def flush(self) -> None:
        """Transfer bytes until none are left."""
        self.network.flush()

    def request(self, method: str, target: str, **options: Any) -> Deferred[Any]:
        """Send a request, with treq's options; return treq's response."""
        answer: Deferred[Any] = self._treq.request(method, f"http://harn.test{target}", **options)
        self.flush()
        return answer

    def get(self, target: str, **options: Any) -> Deferred[Any]:
        """Send a GET."""
        return self.request("GET", target, **options)

    def post(self, target: str, **options: Any) -> Deferred[Any]:
        """Send a POST."""
        return self.request("POST", target, **options)


def memory_client(site: IProtocolFactory, clock: Clock) -> MemoryClient:
    """Make a client of ``site`` that needs no socket."""
    return MemoryClient(MemoryNetwork(site, clock), clock)


@frozen(kw_only=True)
class WireAnswer:
    """One parsed answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


def parse_answers(data: bytes, *, heads: bool = False) -> list[WireAnswer]:
    """
    Parse a server's bytes as answers, each with a ``Content-Length``.

    :param heads: the answers are to HEAD, and have no bodies.
    :raises ValueError: the bytes are not complete HTTP answers.
    """
    answers = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        if not separator:
            raise ValueError(f"the head of an answer is not complete: {head!r}")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError(f"an answer must begin with its HTTP version, got {first!r}")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(rest[:3])
        length = 0 if heads or status in (100, 204, 304) else int(headers.get("content-length", "0"))
        if len(data) < length:
            raise ValueError(f"the body of an answer is not complete: {len(data)} of {length} bytes")
        answers.append(WireAnswer(status=status, headers=headers, body=data[:length]))
        data = data[length:]
    return answers


def request_bytes(
    method: str = "POST", target: str = "/", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> bytes:
    """Return the bytes of a request; ``Content-Length`` is added unless the headers say how its body comes."""
    named = {"Host": "harn.test", **(headers or {})}
    if not {"content-length", "transfer-encoding"} & {name.lower() for name in named}:
        named["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


class Wire:
    """
    One connection as the server sees it: what is sent goes straight to its protocol.

    :param factory: the server's site.
    """

    def __init__(self, factory: IProtocolFactory, peer: IAddress = CLIENT) -> None:
        protocol = factory.buildProtocol(peer)
        assert protocol is not None
        self.protocol: Any = protocol
        self.transport = StringTransport(SERVER, peer, lenient=True)
        self.protocol.makeConnection(self.transport)

    @property
    def closing(self) -> bool:
        """Whether the server has closed its side."""
        return bool(self.transport.disconnecting)

    @property
    def aborted(self) -> bool:
        """Whether the server cut the connection off."""
        return bool(self.transport.disconnected)

    def send(self, data: bytes) -> Wire:
        """Pass bytes to the server."""
        self.protocol.dataReceived(data)
        return self

    def raw(self) -> bytes:
        """Return the bytes that the server wrote since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def answers(self, *, heads: bool = False) -> list[WireAnswer]:
        """Return the answers that came since the last call."""
        return parse_answers(self.raw(), heads=heads)

    def answer(self) -> WireAnswer:
        """
        Return the one answer that came since the last call.

        :raises ValueError: none came, or more than one.
        """
        (only,) = self.answers()
        return only

    def half_close(self) -> Wire:
        """Close the client's writing side; it still reads."""
        self.protocol.readConnectionLost()
        return self

    def drop(self) -> None:
        """Disconnect, as a client does."""
        self.protocol.connectionLost(Failure(connectionDone.value))


class SocketClient(Protocol):
    """
    A client on a real connection that keeps all bytes it got.

    :ivar lost: fires when the connection is gone.
    :ivar reason: how the connection ended, when it is gone.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost: Deferred[None] = Deferred()
        self.reason: Failure | None = None
        self._waiting: list[tuple[int, Deferred[list[WireAnswer]]]] = []

    def dataReceived(self, data: bytes) -> None:
        """Keep bytes, and fire the Deferreds that wait for them."""
        self.data += data
        for entry in list(self._waiting):
            count, waiting = entry
            answers = self._answers()
            if len(answers) >= count:
                self._waiting.remove(entry)
                waiting.callback(answers)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the Deferreds that wait for bytes, and fire ``lost``."""
        waiting, self._waiting = self._waiting, []
        for _, each in waiting:
            each.errback(reason)
        self.reason = reason
        self.lost.callback(None)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(data)

    def until_answers(self, count: int) -> Deferred[list[WireAnswer]]:
        """Fire with the answers so far once there are ``count``; fails if the connection is lost before."""
        answers = self._answers()
        if len(answers) >= count:
            return succeed(answers)
        waiting: Deferred[list[WireAnswer]] = Deferred()
        self._waiting.append((count, waiting))
        return waiting

    def _answers(self) -> list[WireAnswer]:
        """Return the answers so far; none while the last one is not complete."""
        try:
            return parse_answers(bytes(self.data))
        except ValueError:
            return []
