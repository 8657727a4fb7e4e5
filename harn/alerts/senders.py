"""
Senders of messages: over HTTP to Slack's incoming webhooks and to any receiver of JSON, and by mail.

Sources: Slack, "Sending messages using incoming webhooks" and "Rate limits" (429 with Retry-After); Standard Webhooks
specification 1.0 (headers and signature). The mail itself is in `harn.alerts.mailing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import field, frozen
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import Interface, implementer

import harn
from harn.alerts.messages import AlertMessage
from harn.clocks import WallTime
from harn.connectors.signatures import StandardScheme
from harn.errors import AlertNotSent
from harn.manifest.alerts import SLACK, SmtpSettings
from harn.model.display import visible
from harn.waiting import ReactorThreads, limited

if TYPE_CHECKING:
    from treq.client import HTTPClient

HTTP_TIMEOUT = 15.0
"""Seconds that one message may take over HTTP, from the connection to the end of the answer."""
MOST_READ = 1024
"""Bytes of an answer that are read; the rest is cut off."""
MOST_SHOWN = 100
"""Characters of an answer that are shown."""
LONGEST_WAIT = 3600.0
"""Seconds to wait at most, whatever a receiver asks for."""
RETRY_LATER = (429, 503)
MAIL_TIMEOUT = 30.0
"""Seconds that each part of a mail may take: the import at the first, the connection, and the message."""
MAILING = "harn.alerts.mailing"
"""Imported in a thread when the first mail is sent: Twisted's module asks the DNS for this machine's name."""


@frozen(kw_only=True)
class AlertTarget:
    """
    Where messages of an alert go.

    :ivar to: ``slack``, ``webhook`` or ``email``.
    :ivar shown: names it without a secret: a mail address, or the reference of the URL.
    :ivar address: the URL, or the mail address.
    :ivar key: what signs messages, or None.
    :ivar smtp: of email: the mail server.
    :ivar password: of its user, if it has one.
    """

    to: str
    shown: str
    address: str = field(repr=False)
    key: bytes | None = field(default=None, repr=False)
    smtp: SmtpSettings | None = None
    password: bytes | None = field(default=None, repr=False)


class ISender(Interface):
    """Sends messages in one way."""

    def send(target: AlertTarget, message: AlertMessage) -> Awaitable[None]:
        """
        Send one message, and wait until it was accepted.

        :raises AlertNotSent: it was not; the message says why, and shows no secret.
        """


class Senders(Struct, frozen=True):
    """The senders of a server's alerts, by ``to``."""

    by_way: Mapping[str, ISender]


# Over HTTP


def slack_body(message: AlertMessage) -> bytes:
    """Return the body for an incoming webhook: text in Slack's mark-up, whose three characters are escaped."""
    subject, lines = escape(message.subject), "\n".join(map(escape, message.lines))
    section = {"type": "section", "text": {"type": "mrkdwn", "text": f"*{subject}*\n{lines}"[:3000]}}
    return msgspec.json.encode({"text": f"{subject}\n{lines}", "blocks": [section]})


def escape(text: str) -> str:
    """Escape characters that Slack reads as mark-up; see "Formatting text for app surfaces"."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@implementer(ISender)
class HttpSender:
    """
    Posts each message to the URL of its alert.

    :param reactor: what connections are made with.
    :param wall: for the time in a signature.
    """

    def __init__(self, reactor: Any, wall: WallTime) -> None:
        self._clock = reactor
        self._wall = wall
        self._http: HTTPClient | None = None

    async def send(self, target: AlertTarget, message: AlertMessage) -> None:
        """See `ISender.send`."""
        body = slack_body(message) if target.to == SLACK else msgspec.json.encode(message.document)
        headers = {"Content-Type": "application/json", "User-Agent": f"harn/{harn.__version__}"}
        if target.key is not None:
            headers |= StandardScheme().sign(target.key, body, self._wall.seconds(), message.id)
        posting = Deferred.fromCoroutine(self._post(target.address, body, headers))
        try:
            await limited(posting, HTTP_TIMEOUT, self._clock)
        except TimeoutError:
            raise AlertNotSent(f"no answer within {HTTP_TIMEOUT:g} s") from None
        except (AlertNotSent, CancelledError):
            raise
        except Exception as error:
            raise AlertNotSent(reason_of(error)) from None

    def _client(self) -> HTTPClient:
        """Return the client, imported when it is first used: a start would wait for it."""
        if self._http is None:
            from treq.client import HTTPClient
            from twisted.web.client import Agent

            self._http = HTTPClient(Agent(self._clock, connectTimeout=HTTP_TIMEOUT))
        return self._http

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        # Redirects are not followed: the URL is a secret of the receiver alone.
        response = await self._client().post(
            url, data=body, headers=Headers({name: [value] for name, value in headers.items()}), allow_redirects=False
        )
        text = await read_some(response)
        if 200 <= response.code < 300:
            return
        if 300 <= response.code < 400:
            raise AlertNotSent(f"the receiver answered {response.code}, a redirect, which is not followed")
        wait = response.headers.getRawHeaders("Retry-After", [""])[0]
        said = visible(text.decode("utf-8", "replace").strip()[:MOST_SHOWN])
        shown = f": {said}" if said and not shows_part_of(said, url) else ""
        later = retry_after(wait) if response.code in RETRY_LATER else None
        raise AlertNotSent(f"the receiver answered {response.code}{shown}", later)


def retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After header, at most `LONGEST_WAIT`; None where it has none."""
    text = value.strip()
    return min(float(text), LONGEST_WAIT) if text.isascii() and text.isdigit() else None


def shows_part_of(text: str, url: str) -> bool:
    """Return whether a text shows a part of a URL that may be the secret of it."""
    parts = url.partition("://")[2].replace("?", "/").replace("&", "/").replace("=", "/").split("/")[1:]
    return any(len(part) >= 6 and part in text for part in parts)


def reason_of(error: Exception) -> str:
    """
    Return in a few words why there was no answer; texts of other packages may hold the URL, and are not shown.

    :raises CancelledError: it was cancelled.
    """
    from twisted.web.client import ResponseFailed

    if isinstance(error, ResponseFailed) and error.reasons:
        error = error.reasons[0].value
    if isinstance(error, CancelledError):
        raise error
    if isinstance(error, ConnectionLost):
        return "the connection broke before an answer"
    words = (type(error).__doc__ or "").strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class _Reader(Protocol):
    """Reads the beginning of an answer, and then closes the connection."""

    def __init__(self, read: Deferred[bytes]) -> None:
        self._read = read
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        """Keep the data, up to the limit."""
        self._data += data
        if len(self._data) >= MOST_READ and not self._read.called:
            self._read.callback(self._data[:MOST_READ])
            assert self.transport is not None
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Return the data so far, however the answer ended: the status is known."""
        if not self._read.called:
            self._read.callback(self._data)


async def read_some(response: Any) -> bytes:
    """Return the beginning of an answer's body."""
    read: Deferred[bytes] = Deferred()
    response.deliverBody(_Reader(read))
    return await read


# By mail


@implementer(ISender)
class MailSender:
    """
    Sends each message by mail, over the mail server of the manifest.

    :param threads: calls a function off the reactor thread.
    :param host: this machine's name.
    """

    def __init__(self, reactor: Any, wall: WallTime, threads: ReactorThreads, host: str) -> None:
        self._reactor = reactor
        self._wall = wall
        self._threads = threads
        self._host = host

    async def send(self, target: AlertTarget, message: AlertMessage) -> None:
        """See `ISender.send`."""
        smtp, now = target.smtp, self._wall.seconds()
        assert smtp is not None
        try:
            mailing: Any = await limited(self._threads.call(import_module, MAILING), MAIL_TIMEOUT, self._reactor)
            mail = mailing.write_mail(message, smtp.sender, target.address, self._host, now)
            await mailing.send(self._reactor, smtp, target.password, target.address, mail, MAIL_TIMEOUT)
        except TimeoutError:
            raise AlertNotSent(f"no answer of the mail server within {MAIL_TIMEOUT:g} s") from None
