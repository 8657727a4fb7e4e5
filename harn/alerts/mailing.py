"""
One mail to a mail server (RFC 5321; STARTTLS of RFC 3207; implicit TLS of RFC 8314), with Twisted's SMTP client.

Imported by `harn.alerts.senders` alone, in a thread: the import of twisted.mail looks up this machine's name, and may
block.
"""

from __future__ import annotations

from datetime import datetime, timezone
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.mail.smtp import ESMTPSender, ESMTPSenderFactory, SMTPClientError
from twisted.python.failure import Failure

from harn.alerts.messages import AlertMessage
from harn.errors import AlertNotSent
from harn.manifest.alerts import STARTTLS, TLS, SmtpSettings
from harn.model.display import visible
from harn.waiting import limited

MOST_SHOWN = 200
"""Characters of a mail server's answer that are shown."""


def write_mail(message: AlertMessage, sender: str, recipient: str, host: str, now: float) -> bytes:
    """
    Return a mail with its headers, lines ending in CRLF.

    :param host: the name of this machine, for the id of the mail.
    :param now: the time of the mail (seconds, Unix).
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


async def send(
    reactor: Any, smtp: SmtpSettings, password: bytes | None, recipient: str, mail: bytes, timeout: float
) -> None:
    """
    Send one mail, and wait until the server accepted it.

    :param reactor: makes the connection.
    :param timeout: the limit of each step: the connection, each reply, and the message (seconds).
    :raises AlertNotSent: the server cannot be reached, or has refused the mail.
    :raises twisted.internet.defer.TimeoutError: a step took too long.
    :raises CancelledError: the call was cancelled.
    """
    sent, factory = make_factory(smtp, password, recipient, mail, timeout)
    endpoint: Any = HostnameEndpoint(reactor, smtp.host or "", smtp.port_number)
    try:
        if smtp.tls == TLS:
            endpoint = wrapClientTLS(optionsForClientTLS(smtp.host or ""), endpoint)
        protocol = await limited(endpoint.connect(factory), timeout, reactor)
        try:
            await limited(sent, timeout, reactor)
        finally:
            hang_up(protocol)
    except TimeoutError:
        raise
    except (CancelledError, ConnectingCancelledError):
        raise CancelledError from None  # the server stops
    except Exception as error:
        raise AlertNotSent(reason_of(error)) from None


class MailProtocol(ESMTPSender):
    """Sends one mail, and reports a lost connection to its factory, as `connectTCP` does and endpoints do not."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the Deferred of the mail, unless it was sent."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.factory.clientConnectionLost(None, reason)


class MailFactory(ESMTPSenderFactory):
    """Makes the protocol for one mail."""

    protocol = MailProtocol
    noisy = False


def make_factory(
    smtp: SmtpSettings, password: bytes | None, recipient: str, mail: bytes, timeout: float
) -> tuple[Deferred[Any], MailFactory]:
    """
    Return a Deferred that fires when a mail was accepted, and the factory to connect with.

    :param timeout: the limit of each reply (seconds).
    """
    sent: Deferred[Any] = Deferred()
    factory = MailFactory(  # type: ignore[no-untyped-call]
        None if smtp.username is None else smtp.username.encode("utf-8"),
        password,
        smtp.sender,
        recipient,
        BytesIO(mail.replace(b"\r\n", b"\n")),  # the protocol writes the ends of lines itself
        sent,
        retries=0,
        timeout=timeout,
        contextFactory=optionsForClientTLS(smtp.host or "") if smtp.tls == STARTTLS else None,
        requireAuthentication=password is not None,
        requireTransportSecurity=smtp.tls == STARTTLS,
    )
    return sent, factory


def hang_up(protocol: Any) -> None:
    """Close the connection after a mail was sent or has failed."""
    factory = protocol.factory
    factory.sendFinished = True
    if protocol.transport is not None:
        protocol.transport.abortConnection()


def reason_of(error: Exception) -> str:
    """Return the reply of a mail server, or in a few words why there was none."""
    if isinstance(error, SMTPClientError):
        answer = visible(error.resp.decode("utf-8", "replace").strip()[:MOST_SHOWN])
        return f"the mail server answered {error.code} {answer}" if error.code > 0 else answer
    words = (type(error).__doc__ or "").strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
