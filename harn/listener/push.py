"""Routes whose senders use the server's own credentials, such as a2a-push: a Klein app, then ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harn.errors import Refused
from harn.listener.ingest import Ingest
from harn.listener.place import KleinPlace
from harn.listener.request import HarnRequest
from harn.listener.web import render
from harn.model.delivery import Claim

if TYPE_CHECKING:
    from klein import Klein

CHALLENGE = b'WWW-Authenticate: Bearer realm="harn", HMAC-SHA256 realm="harn"\r\n'


class Push(Ingest, KleinPlace):
    """
    The resource of every route with ``credentials``.

    Klein answers them by one rule, whatever their number: the route was found in the tree of the generation when the
    headers were in, and so was its lease.
    """

    challenge = CHALLENGE

    def make_app(self) -> Klein:
        """See `KleinPlace.make_app`."""
        from harn.listener.klein_pages import make_push_app

        return make_push_app(self)

    def _check_sender(self, request: HarnRequest) -> None:
        """Refuse a sender by the headers alone, before a body is read."""
        self._credentials.authenticator().authenticate_headers(request.headers, request.received_at)

    def serve(self, request: HarnRequest) -> None:
        """Render the page of Klein."""
        render(request)

    def push(self, request: HarnRequest) -> None:
        """Authenticate, then ingest; a signature is used up in the same durable unit as its event."""
        try:
            guard = self._authenticate(request)
        except Refused as error:
            request.refuse(error)
            return
        self.receive(request, guard)

    def _authenticate(self, request: HarnRequest) -> Claim | None:
        identity = self._credentials.authenticator().authenticate(
            request.method.decode("latin-1"),
            request.uri.decode("latin-1"),
            request.headers,
            request.body,
            request.received_at,
        )
        guard: Claim | None = identity.guard
        return guard
