"""
Twisted's SMTP client for one mail over an endpoint's connection.

Imported by `harn.alerts.mailing` alone, in a thread: the import of twisted.mail looks up this machine's name, and may
block.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.mail.smtp import ESMTPSender, ESMTPSenderFactory, SMTPClientError
from twisted.python.failure import Failure

from harn.manifest.alerts import STARTTLS, SmtpSettings
from harn.model.display import visible

MOST_SHOWN = 200
"""Characters of a mail server's answer that are shown."""


class MailProtocol(ESMTPSender):
    """Sends one mail, and reports a connection that is lost before: endpoints do not, as `connectTCP` does."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what waits for the mail, unless it was sent."""
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
    Return what fires when a mail was accepted, and the factory to connect with.

    :param timeout: seconds that each answer may take.
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
    """Close the connection of a mail that was sent, or is given up."""
    factory = protocol.factory
    factory.sendFinished = True
    if protocol.transport is not None:
        protocol.transport.abortConnection()


def reason_of(error: Exception) -> str:
    """Return what a mail server answered, or in a few words why there was no answer."""
    if isinstance(error, SMTPClientError):
        answer = visible(error.resp.decode("utf-8", "replace").strip()[:MOST_SHOWN])
        return f"the mail server answered {error.code} {answer}" if error.code > 0 else answer
    words = (type(error).__doc__ or "").strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
