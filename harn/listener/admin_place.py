"""What all places under ``/admin`` have in common: who may ask, how it is read, and how it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

import msgspec
from attrs import frozen
from klein import Klein
from twisted.python.failure import Failure

from harn.auth.authenticator import Authenticator, Identity
from harn.clocks import WallTime
from harn.errors import RouteUnknown, SignatureReplayed
from harn.listener.admin_arguments import check_options, parse_body
from harn.listener.etags import quoted
from harn.listener.klein_pages import answer_failure, make_app, methods_of, shielded
from harn.listener.place import Place
from harn.listener.push import CHALLENGE
from harn.listener.request import JSON, HarnRequest
from harn.observability.audit import Acting, Audit
from harn.store.inbox import IInbox

EVERYTHING = "/admin"
"""The name in the metrics of what has none of its own."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


@frozen(kw_only=True)
class Door:
    """
    Who may ask.

    :ivar wall: tells how fresh a signature is.
    :ivar authenticator: gives the one of now: a reload makes a new one.
    :ivar inbox: where signatures that count once are claimed.
    :ivar audit: records what they had the server do.
    """

    wall: WallTime
    authenticator: Callable[[], Authenticator]
    inbox: IInbox
    audit: Audit

    def check_headers(self, request: HarnRequest) -> None:
        """
        Turn away whom the headers alone give away.

        :raises CredentialsRejected: or one of its classes.
        """
        self.authenticator().authenticate_headers(request.lower_headers(), request.received_at)

    async def identify(self, request: HarnRequest) -> Identity:
        """
        Find out who asks, and use up a signature that counts once.

        :raises CredentialsRejected: or one of its classes.
        :raises EventLogUnavailable: the signature cannot be remembered.
        """
        identity: Identity = self.authenticator().authenticate(
            request.method.decode("latin-1"),
            request.uri.decode("latin-1"),
            request.lower_headers(),
            request.body,
            self.wall.seconds(),
        )
        guard = identity.guard
        if guard is not None and not await shielded(self.inbox.claim(guard.scope, guard.key, guard.expires_at)):
            raise SignatureReplayed("this signature was used before; sign each request anew")
        return identity


def make_admin_app() -> Klein:
    """Make the app of an `AdminPlace`: one that answers errors with problem documents."""
    app = make_app()

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # ours are HarnRequests
    def failed(place: AdminPlace, request: HarnRequest, failure: Failure) -> None:
        answer_failure(request, failure)

    return app


class AdminPlace(Place):
    """Some of the pages under ``/admin``; each begins with finding out who asks. ``app``: its pages."""

    app: ClassVar[Klein]
    challenge = CHALLENGE

    def __init__(self, door: Door) -> None:
        self._door = door
        self.resource = self.app.resource()
        self._endpoints = frozenset("/".join(rule.rule.split("/")[:3]) for rule in self.app.url_map.iter_rules())

    def endpoint(self, request: HarnRequest) -> str:
        """The first two segments: names of triggers and events are no labels, and neither are other spellings."""
        known = "/".join(request.path.decode("latin-1").split("/")[:3])
        return known if known in self._endpoints else EVERYTHING

    def knows(self, request: HarnRequest) -> bool:
        """Tell whether the request's path is one of these pages."""
        try:
            methods_of(self.app, request)
        except RouteUnknown:
            return False
        return True

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        What the app's rules say; only who may ask learns it.

        :raises CredentialsRejected: the headers show none.
        """
        self._door.check_headers(request)
        return methods_of(self.app, request)

    def body_limit(self, request: HarnRequest) -> int:
        """Enough for any command."""
        return request.site.limits.admin_body

    def serve(self, request: HarnRequest) -> None:
        """Let ``twisted.web`` render the app."""
        request.process()  # type: ignore[no-untyped-call]  # twisted.web is not typed here

    async def identify(self, request: HarnRequest) -> Identity:
        """See `Door.identify`."""
        return await self._door.identify(request)

    async def act(
        self,
        request: HarnRequest,
        acting: Acting,
        action: Callable[[str, Mapping[str, Any]], Awaitable[Any]],
        members: tuple[str, ...] = (),
        name: str | None = None,
    ) -> None:
        """Authenticate, read the body, act, record who asked, answer with the result, under ``name`` if it has one."""
        identity = await self.identify(request)
        check_options(request.query_options())
        asked = parse_body(request.body, members)

        async def act() -> Any:
            result = await action(identity.actor, asked)
            await self._door.audit.record(acting, identity.actor, asked, result)
            return result

        result = await shielded(act())
        reply(request, 200, result if name is None else {name: result})

    async def show(
        self,
        request: HarnRequest,
        read: Callable[[Mapping[str, str]], Awaitable[Any]],
        name: str | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        """Authenticate, answer with what is read by the query's ``options``, under ``name`` if it has one."""
        await self.identify(request)
        given = request.query_options()
        check_options(given, options)
        found = await shielded(read(given))
        reply(request, 200, found if name is None else {name: found})


def reply(request: HarnRequest, status: int, document: Any, headers: bytes = b"") -> None:
    """Response with a JSON value."""
    request.send(status, _encode(document), JSON, headers)


def etag_line(etag: str) -> bytes:
    """Write the header line that goes with a generation."""
    return b"ETag: " + quoted(etag).encode("latin-1", "replace") + b"\r\n"
