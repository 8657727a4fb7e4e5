"""Routes whose senders our own credentials authenticate: authenticate, then ingest as on other routes."""

from __future__ import annotations

from harn.errors import Refused
from harn.listener.ingest import Ingest
from harn.listener.request import HarnRequest
from harn.model.delivery import Claim

CHALLENGE = b'WWW-Authenticate: Bearer realm="harn", HMAC-SHA256 realm="harn"\r\n'


class Push(Ingest):
    """The resource of every route with ``credentials``."""

    challenge = CHALLENGE

    def _check_sender(self, request: HarnRequest) -> None:
        """Refuse a sender by the headers alone, before a body is read."""
        self._authenticator().authenticate_headers(request.lower_headers(), request.received_at)

    def serve(self, request: HarnRequest) -> None:
        """Authenticate, then ingest; a signature is used up in the same durable unit as its event."""
        try:
            guard = self._authenticate(request)
        except Refused as error:
            self._refuse(error, request)
            return
        self.receive(request, guard)

    def _authenticate(self, request: HarnRequest) -> Claim | None:
        identity = self._authenticator().authenticate(
            request.method.decode("latin-1"),
            request.uri.decode("latin-1"),
            request.lower_headers(),
            request.body,
            request.received_at,
        )
        guard: Claim | None = identity.guard
        return guard
