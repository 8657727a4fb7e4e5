"""The interface of what sends messages, and where they go."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from attrs import field, frozen
from zope.interface import Interface

from harn.alerts.messages import Message
from harn.manifest.alerts import SmtpSettings


@frozen(kw_only=True)
class Target:
    """
    Where messages of an alert go.

    :ivar to: ``slack``, ``webhook`` or ``email``.
    :ivar shown: names it without a secret: a mail address, or the reference of the URL.
    :ivar address: the URL, or the mail address.
    :ivar key: what signs messages, or None.
    :ivar smtp: of email: the mail server; ``password``: of its user, if it has one.
    """

    to: str
    shown: str
    address: str = field(repr=False)
    key: bytes | None = field(default=None, repr=False)
    smtp: SmtpSettings | None = None
    password: bytes | None = field(default=None, repr=False)


class ISender(Interface):
    """Sends messages in one way."""

    def send(target: Target, message: Message) -> Awaitable[None]:
        """
        Send one message, and wait until it was accepted.

        :raises AlertNotSent: it was not; the message says why, and shows no secret.
        """


@frozen
class Senders:
    """The senders of a server's alerts, by ``to``."""

    by_way: Mapping[str, ISender]
