"""
Routes of a2a-push: a Klein app passes their requests to ingest. A sender is authenticated by the server's credentials,
or by its connector, whose keys may have to be fetched first.
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

    Klein has one rule for all of them: the route was looked up in the tree of the generation, and leased, when the
    headers were complete.
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
        """Render the request with Klein, which calls `push`."""
        render(request)

    def push(self, request: HarnRequest) -> None:
        """Authenticate, then ingest; the claim of a signature or token is in the same durable unit as the event."""
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
        """Fetch the keys that the connector needs, then continue: it verifies the request with them."""
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
        """Send the problem document of an error; if a token was used before, send the response to a duplicate."""
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
    """Return the connector of a request's route if it is an `IKeyedReceiver`, else None."""
    assert request.route is not None
    return getattr(request.route.receiver.value, "keyed", None)


def _verifies(request: HarnRequest) -> bool:
    """Return whether the connector of a request's route authenticates senders, instead of the server's credentials."""
    keyed = _keyed(request)
    return keyed is not None and keyed.authentication == VERIFIED_HERE
