"""Signing in and out: an API key makes a session, which every request shows again by its cookie."""

from __future__ import annotations

from msgspec import UNSET, Struct

from harn.auth.authenticator import Identity, LiveCredentials, digest_of_key
from harn.clocks import WallTime
from harn.console.attempts import MOST_FAILURES, Attempts
from harn.console.origins import is_secure, network_of_sender
from harn.console.sessions import LIFETIME, Session, Sessions
from harn.errors import CredentialsRejected, RateExceeded
from harn.listener.request import HarnRequest
from harn.operations.model import Caller
from harn.operations.registry import DONE, FAILED, TOPIC, AuditRecord, Records, new_record_id

ROOT = "/console"
SIGN_IN, SIGN_OUT = "console.sign_in", "console.sign_out"
"""What audit records call them."""
ANONYMOUS = "anonymous"
"""The actor of a sign-in that failed."""


class Door(Struct, frozen=True, kw_only=True):
    """
    Lets users in.

    :ivar credentials: those of the live generation: a reload replaces them.
    :ivar cookie: the name of the cookie. Browsers send a cookie to every port of a host, so each server has its own.
    """

    wall: WallTime
    credentials: LiveCredentials
    records: Records
    sessions: Sessions
    attempts: Attempts
    cookie: str

    def session_of(self, request: HarnRequest) -> Session | None:
        """Return the session of a request, if its key is still accepted; else it ends."""
        session_id = self._cookie_of(request)
        session = self.sessions.find(session_id) if session_id else None
        return session if session is not None and self.holds(session) else None

    def holds(self, session: Session) -> bool:
        """Return whether a session continues, with the role that its key has now; it ends with its key."""
        if not self.sessions.holds(session):
            return False
        identity = self._holder_of(session.key)
        if identity is None:
            self.sessions.end(session)
            return False
        session.identity = identity
        return True

    async def sign_in(self, request: HarnRequest, key: str) -> bytes:
        """
        Begin a session; return the header line that gives the browser its cookie.

        A right key is accepted however many wrong ones came from its address: behind a proxy that is not trusted that
        is the address of all users. Nothing is lost by it: the admin API checks keys without a limit.

        :param key: from the form.
        :raises CredentialsRejected: it is not a key of this server.
        :raises RateExceeded: so, and this address has failed too often.
        """
        address = network_of_sender(request)
        digest = digest_of_key(key.strip().encode("utf-8", "replace").decode("latin-1"))  # as in a header
        identity = self._holder_of(digest)
        if identity is None:
            await self._refuse(address)
            raise CredentialsRejected("this key is not accepted")
        session_id, _ = self.sessions.open(digest, identity)
        await self._record(SIGN_IN, identity, address)
        return self._cookie_line(request, session_id, int(LIFETIME))

    async def _refuse(self, address: str) -> None:
        """Count and record a wrong key of an address, or raise `RateExceeded`."""
        wait = self.attempts.wait(address)
        if wait:
            raise RateExceeded(
                f"{MOST_FAILURES} attempts from {address} have failed; try again in {wait} s", retry_after=wait
            )
        self.attempts.failed(address)
        if self.attempts.may_record():
            await self._record(SIGN_IN, None, address, error="the key is not accepted")

    async def sign_out(self, request: HarnRequest, session: Session) -> bytes:
        """End a session; return the header line that removes its cookie."""
        self.sessions.end(session)
        await self._record(SIGN_OUT, session.identity, network_of_sender(request))
        return self._cookie_line(request, "", 0)

    def _holder_of(self, digest: bytes) -> Identity | None:
        return self.credentials.admin_authenticator().identity_of(digest)

    def _cookie_of(self, request: HarnRequest) -> str:
        from werkzeug.http import parse_cookie  # slow to import, and only a console needs it

        found: str | None = parse_cookie(request.headers.get("cookie", "")).get(self.cookie)
        return found or ""

    def _cookie_line(self, request: HarnRequest, value: str, seconds: int) -> bytes:
        secure = "; Secure" if is_secure(request) else ""
        line = f"{self.cookie}={value}; Path={ROOT}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        return f"Set-Cookie: {line}\r\n".encode("ascii")

    async def _record(self, operation: str, identity: Identity | None, address: str, error: str | None = None) -> None:
        record = AuditRecord(
            id=new_record_id(self.wall.seconds()),
            actor=ANONYMOUS if identity is None else identity.actor,
            role=UNSET if identity is None else identity.role.value,
            operation=operation,
            parameters={"address": address},
            filter={},
            outcome=DONE if error is None else FAILED,
            counts={},
            error=UNSET if error is None else error,
        )
        await self.records.note(TOPIC, operation, record)


def caller_of(session: Session) -> Caller:
    """Return the caller of the operations that a session's user asks for."""
    return Caller(actor=session.identity.actor, role=session.identity.role)
