"""Routes whose senders use the server's own credentials, such as a2a-push: a Klein app, then ingest."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from werkzeug.routing import BaseConverter

from harn.errors import Refused
from harn.listener.ingest import Ingest
from harn.listener.klein_pages import answer_failure, make_app
from harn.listener.request import HarnRequest
from harn.listener.web import WebRequest, render
from harn.model.delivery import Claim

CHALLENGE = b'WWW-Authenticate: Bearer realm="harn", HMAC-SHA256 realm="harn"\r\n'


class AnyPath(BaseConverter):
    """Matches a path of any number of segments, empty ones included."""

    regex = ".*"
    part_isolating = False


class Push(Ingest):
    """
    The resource of every route with ``credentials``.

    Klein answers them by one rule, whatever their number: the route was found in the tree of the generation when the
    headers were in, and so was its lease.
    """

    challenge = CHALLENGE

    def __init__(self, *given: Any) -> None:
        """See `Ingest`."""
        super().__init__(*given)
        self.app: Klein = make_push_app(self)

    def _check_sender(self, request: HarnRequest) -> None:
        """Refuse a sender by the headers alone, before a body is read."""
        self._authenticator().authenticate_headers(request.headers, request.received_at)

    def serve(self, request: HarnRequest) -> None:
        """Render the page of Klein."""
        render(request)

    def push(self, request: HarnRequest) -> None:
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
            request.headers,
            request.body,
            request.received_at,
        )
        guard: Claim | None = identity.guard
        return guard


def make_push_app(push: Push) -> Klein:
    """Make the Klein app that answers every route of ``push``."""
    app = make_app()
    app.url_map.converters["any_path"] = AnyPath

    @app.route("/<any_path:path>", methods=["POST"])
    def post(web: WebRequest, path: str) -> Deferred[Any]:
        answered: Deferred[Any] = web.notifyFinish()
        push.push(web.request)
        return answered.addErrback(lambda gone: None)  # a client that has disconnected is not an error

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # these requests are WebRequests
    def failed(web: WebRequest, failure: Failure) -> None:
        answer_failure(web.request, failure)

    return app
