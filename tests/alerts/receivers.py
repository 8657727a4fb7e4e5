"""Receivers of messages, on real sockets in the tests' process: HTTP servers with set answers, and a mail server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.mail.imap4 import LOGINCredentials
from twisted.mail.smtp import ESMTP, IMessage, IMessageDelivery, SMTPBadRcpt, SMTPFactory
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

LOOP: Any = reactor


class Received:
    """One request."""

    def __init__(self, request: Any) -> None:
        self.method: bytes = request.method
        self.path: bytes = request.uri
        self.headers: Headers = request.requestHeaders
        self.body: bytes = request.content.read()

    def header(self, name: str) -> str:
        """Return the only value of a header."""
        (value,) = self.headers.getRawHeaders(name, [])
        return str(value)


class HttpReceiver(Resource):
    """
    Answers each request with the next of ``answers``: status, headers, body; with the last again and again.

    :ivar received: the requests so far.
    :ivar hangs: it takes requests and never answers.
    """

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(self, *answers: tuple[int, dict[str, str], bytes], hangs: bool = False) -> None:
        super().__init__()
        self.answers = list(answers) or [(200, {}, b"ok")]
        self.hangs = hangs
        self.received: list[Received] = []
        self.arrived: Deferred[None] = Deferred()
        site = Site(self)
        site.noisy = False
        self._port = LOOP.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}/services/T0/B0/s3cr3tt0ken"

    def render(self, request: Any) -> Any:
        """Answer."""
        self.received.append(Received(request))
        if not self.arrived.called:
            self.arrived.callback(None)
        if self.hangs:
            return NOT_DONE_YET
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body

    def close(self) -> Any:
        """Stop listening."""
        return maybeDeferred(self._port.stopListening)


@implementer(IMessage)
class _Mail:
    def __init__(self, server: MailReceiver) -> None:
        self._server = server
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        """Keep a line."""
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        """Keep the mail."""
        self._server.mails.append(b"\r\n".join(self._lines))
        return succeed(None)

    def connectionLost(self) -> None:
        """Keep nothing."""


@implementer(IMessageDelivery)
class _Delivery:
    def __init__(self, server: MailReceiver) -> None:
        self._server = server

    def receivedHeader(self, helo: Any, origin: Any, recipients: Iterable[Any]) -> bytes:
        """Add no header of its own."""
        return b"X-Received: here"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        """Accept mail from any sender."""
        self._server.senders.append(str(origin))
        return origin

    def validateTo(self, user: Any) -> Any:
        """Accept mail for recipients that are not refused."""
        if str(user.dest) in self._server.refused:
            raise SMTPBadRcpt(user)
        self._server.recipients.append(str(user.dest))
        return lambda: _Mail(self._server)


@implementer(IRealm)
class _Realm:
    def __init__(self, delivery: _Delivery) -> None:
        self._delivery = delivery

    def requestAvatar(self, avatar: Any, mind: Any, *interfaces: Any) -> Any:
        """Return the delivery of a user who logged in."""
        return IMessageDelivery, self._delivery, lambda: None


def _portal(delivery: _Delivery, users: dict[str, str]) -> Portal:
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    for name, password in users.items():
        checker.addUser(name.encode(), password.encode())
    return Portal(_Realm(delivery), [checker])


class MailReceiver:
    """
    A mail server.

    :param context: a context factory: offers STARTTLS.
    :param users: names and passwords; it offers a login where there are any.
    :param encrypted_by: a context factory: each connection is encrypted from the start.
    :ivar mails: those that it took, each with its headers.
    """

    def __init__(
        self,
        context: Any = None,
        users: dict[str, str] | None = None,
        refused: Iterable[str] = (),
        encrypted_by: Any = None,
    ) -> None:
        self.mails: list[bytes] = []
        self.senders: list[str] = []
        self.recipients: list[str] = []
        self.refused = frozenset(refused)
        delivery = _Delivery(self)
        factory: Any = SMTPFactory()
        factory.noisy = False
        factory.portal = None if not users else _portal(delivery, users)
        factory.protocol = lambda: self._protocol(delivery, context, bool(users))
        if encrypted_by is None:
            self._port = LOOP.listenTCP(0, factory, interface="127.0.0.1")
        else:
            self._port = LOOP.listenSSL(0, factory, encrypted_by, interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    @staticmethod
    def _protocol(delivery: _Delivery, context: Any, needs_login: bool) -> Any:
        protocol: Any = ESMTP({b"LOGIN": LOGINCredentials} if needs_login else {}, context)
        protocol.delivery = None if needs_login else delivery
        return protocol

    def close(self) -> Any:
        """Stop listening."""
        return maybeDeferred(self._port.stopListening)


class _Mute(Protocol):
    """Takes a connection, and says nothing."""

    def connectionMade(self) -> None:
        """Record that there is a connection."""
        connected: Deferred[None] = self.factory.connected
        if not connected.called:
            connected.callback(None)


class _Rude(Protocol):
    """Closes each connection at once."""

    def connectionMade(self) -> None:
        """Close it."""
        assert self.transport is not None
        self.transport.loseConnection()


class TcpReceiver:
    """Takes connections, and says nothing, or closes them."""

    def __init__(self, *, closes: bool = False) -> None:
        factory: Any = Factory.forProtocol(_Rude if closes else _Mute)
        self.connected: Deferred[None] = Deferred()
        factory.connected = self.connected
        factory.noisy = False
        self._port = LOOP.listenTCP(0, factory, interface="127.0.0.1")
        self.port: int = self._port.getHost().port

    def close(self) -> Any:
        """Stop listening."""
        return maybeDeferred(self._port.stopListening)
