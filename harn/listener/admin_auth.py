"""Authentication for the admin API: the credential that a request shows, and its role."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.auth.authenticator import LiveCredentials
from harn.clocks import WallTime
from harn.errors import Refused, SignatureReplayed
from harn.listener.request import HarnRequest
from harn.operations.model import Caller
from harn.store.inbox import IInbox
from harn.waiting import shield

T = TypeVar("T")
log = Logger(namespace="harn.listener")


def shielded(work: Awaitable[T]) -> Deferred[T]:
    """Wait for ``work``, which continues if Klein cancels the waiting because the client disconnected."""
    return shield(work, _log_late)


def _log_late(failure: Failure) -> None:
    if not failure.check(Refused):
        log.failure("work for a disconnected client failed", failure)


class AdminAuth(Struct, frozen=True, kw_only=True):
    """
    Checks the credentials of requests to the admin API.

    :ivar wall: the clock for the age of a signature.
    :ivar credentials: the credentials of the live generation.
    :ivar inbox: the inbox in which signatures that may be used once are claimed.
    """

    wall: WallTime
    credentials: LiveCredentials
    inbox: IInbox

    def check_headers(self, request: HarnRequest) -> None:
        """
        Refuse a request whose headers alone show that it has no credentials.

        :raises CredentialsRejected: or one of its classes.
        """
        self.credentials.admin_authenticator().authenticate_headers(request.headers, request.received_at)

    async def identify(self, request: HarnRequest) -> Caller:
        """
        Return the caller, with the role of its credential; claim its signature if that may be used only once.

        :raises CredentialsRejected: or one of its classes.
        :raises EventLogUnavailable: the signature cannot be claimed.
        """
        identity = self.credentials.admin_authenticator().authenticate(
            request.method.decode("latin-1"),
            request.uri.decode("latin-1"),
            request.headers,
            request.body,
            self.wall.seconds(),
        )
        guard = identity.guard
        if guard is not None and not await shielded(self.inbox.claim(guard.scope, guard.key, guard.expires_at)):
            raise SignatureReplayed("this signature was used before; make a new signature for each request")
        return Caller(actor=identity.actor, role=identity.role)
