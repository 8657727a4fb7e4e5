"""
Routes of a2a-push: a Klein app, then ingest. Senders use the server's own credentials, or what their connector checks,
with keys that may have to be fetched first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harn.connectors.interfaces import VERIFIED_HERE
from harn.errors import ClaimTaken, Refused
from harn.lifecycle import Dropped
from harn.listener.answers import duplicate_answer
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
        if _verifies(request):
            super()._check_sender(request)
            return
        self._credentials.authenticator().authenticate_headers(request.headers, request.received_at)

    def serve(self, request: HarnRequest) -> None:
        """Render the page of Klein."""
        render(request)

    def push(self, request: HarnRequest) -> None:
        """Authenticate, then ingest; a signature or token is used up in the same durable unit as its event."""
        if _verifies(request):
            self._push_verified(request)
            return
        try:
            guard = self._authenticate(request)
        except Refused as error:
            request.refuse(error)
            return
        self.receive(request, guard)

    def _push_verified(self, request: HarnRequest) -> None:
        """Pass the request on once the keys that it needs are there; the connector verifies it with them."""
        keyed = _keyed(request)
        try:
            waiting = keyed.look_for_keys(request.headers)
            guard = keyed.claim_of(request.headers)
        except Exception as error:
            self._failed(error, request)
            return
        if waiting is None:
            self.receive(request, guard)
            return
        waiting.addCallback(lambda _: self.receive(request, guard))
        waiting.addErrback(self.stumbled, request)

    def _failed(self, error: BaseException, request: HarnRequest) -> None:
        """Answer with the problem document of an error; a token that was used before is a duplicate of its event."""
        if isinstance(error, ClaimTaken) and _verifies(request):
            assert request.route is not None
            members = request.route.members
            for binding in (member.binding for member in members):
                self._lifecycle.emit(Dropped(binding.id, binding.spec.provider, duplicates=1))
            request.send(*duplicate_answer(members))
            return
        super()._failed(error, request)

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


def _keyed(request: HarnRequest) -> Any:
    """Return the `IKeyedReceiver` of a request's route; None for another connector."""
    assert request.route is not None
    return getattr(request.route.receiver.value, "keyed", None)


def _verifies(request: HarnRequest) -> bool:
    """Return whether the connector of a request's route proves senders, and not the server's own credentials."""
    keyed = _keyed(request)
    return keyed is not None and keyed.authentication == VERIFIED_HERE
