"""Sending by mail (RFC 5321; STARTTLS of RFC 3207; implicit TLS of RFC 8314)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from importlib import import_module
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.ssl import optionsForClientTLS
from zope.interface import implementer

from harn.alerts.interfaces import ISender, Target
from harn.alerts.messages import Message
from harn.clocks import WallTime
from harn.errors import AlertNotSent
from harn.manifest.alerts import TLS
from harn.waiting import limited

TIMEOUT = 30.0
"""Seconds that each part of sending may take: the import at the first, the connection, and the message."""
CLIENT = "harn.alerts.smtp_client"
"""Imported in a thread when the first mail is sent: Twisted's module asks the DNS for this machine's name."""


def write_mail(message: Message, sender: str, recipient: str, host: str, now: float) -> bytes:
    """
    Return a mail with its headers, lines ending in CRLF.

    :param host: of the server that sends, for the id of the mail.
    :param now: seconds, Unix.
    """
    mail = EmailMessage(policy=SMTP.clone(cte_type="7bit"))  # not every server takes 8-bit lines
    mail["From"] = Address("harn", addr_spec=sender)
    mail["To"] = Address(addr_spec=recipient)
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(now, timezone.utc))
    mail["Message-ID"] = f"<{message.id}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation messages back
    mail.set_content(message.text + "\n")
    return mail.as_bytes()


@implementer(ISender)
class MailSender:
    """
    Mails messages.

    :param in_thread: calls a function off the reactor thread.
    :param host: this machine's name.
    """

    def __init__(self, reactor: Any, wall: WallTime, in_thread: Callable[..., Deferred[Any]], host: str) -> None:
        self._reactor = reactor
        self._wall = wall
        self._in_thread = in_thread
        self._host = host

    async def send(self, target: Target, message: Message) -> None:
        """See `ISender.send`."""
        smtp = target.smtp
        assert smtp is not None
        assert smtp.host is not None
        assert smtp.sender is not None
        mail = write_mail(message, smtp.sender, target.address, self._host, self._wall.seconds())
        try:
            client = await limited(self._in_thread(import_module, CLIENT), TIMEOUT, self._reactor)
            sent, factory = client.make_factory(smtp, target.password, target.address, mail, TIMEOUT)
            endpoint: Any = HostnameEndpoint(self._reactor, smtp.host, smtp.port_number)
            if smtp.tls == TLS:
                endpoint = wrapClientTLS(optionsForClientTLS(smtp.host), endpoint)
            protocol = await limited(endpoint.connect(factory), TIMEOUT, self._reactor)
            try:
                await limited(sent, TIMEOUT, self._reactor)
            finally:
                client.hang_up(protocol)
        except TimeoutError:
            raise AlertNotSent(f"no answer of the mail server within {TIMEOUT:g} s") from None
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None  # the server ends
        except Exception as error:
            raise AlertNotSent(import_module(CLIENT).reason_of(error)) from None
