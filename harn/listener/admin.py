"""The admin API: Klein routes made from the operations of the server, and their answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from klein import Klein
from twisted.python.failure import Failure

from harn.listener.admin_auth import AdminAuth
from harn.listener.klein_pages import answer_failure, make_app, methods_of, shielded
from harn.listener.place import Place
from harn.listener.push import CHALLENGE
from harn.listener.request import JSON, HarnRequest
from harn.listener.web import WebRequest, render
from harn.operations.http import Arguments, read_parameters
from harn.operations.model import Operation, Reply
from harn.operations.registry import Operations

ROOT = "/admin"
"""Every path of the admin API is under it; also the name in the metrics of paths that have no endpoint."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Admin(Place):
    """
    The place of every operation's route.

    A request without credentials in its headers gets the same answer whether or not there is such a route. An operation
    that has begun continues when its client disconnects.
    """

    challenge = CHALLENGE

    def __init__(self, auth: AdminAuth, operations: Operations) -> None:
        self._auth = auth
        self._operations = operations
        self.app: Klein = make_admin_app(operations, self._answer)
        self._endpoints = frozenset("/".join(rule.rule.split("/")[:3]) for rule in self.app.url_map.iter_rules())

    def endpoint(self, request: HarnRequest) -> str:
        """Return the first two segments, if an operation has them: ids of triggers and events must not be labels."""
        known = "/".join(request.path.decode("latin-1").split("/")[:3])
        return known if known in self._endpoints else ROOT

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Return the methods of the path's routes.

        :raises CredentialsRejected: the headers show no credentials.
        :raises RouteUnknown: no operation has this path.
        """
        self._auth.check_headers(request)
        return methods_of(self.app, request)

    def body_limit(self, request: HarnRequest) -> int:
        """Return the largest body of any operation."""
        return request.site.limits.admin_body

    def serve(self, request: HarnRequest) -> None:
        """Render the page of Klein."""
        render(request)

    async def _answer(self, request: HarnRequest, operation: Operation[Any, Any, Any], path: dict[str, str]) -> None:
        """Authenticate, read the parameters, run the operation, send its result."""
        caller = await self._auth.identify(request)
        arguments = Arguments(path=path, query=request.query_options(), headers=request.headers, body=request.body)
        wanted = read_parameters(operation, arguments)
        reply: Reply[Any] = await shielded(self._operations.run(operation, caller, wanted))
        headers = b"" if reply.etag is None else b"ETag: " + reply.etag.encode("latin-1", "replace") + b"\r\n"
        request.send(reply.status, _encode(reply.result), JSON, headers)


Answer = Callable[[HarnRequest, Operation[Any, Any, Any], dict[str, str]], Awaitable[None]]


def make_admin_app(operations: Operations, answer: Answer) -> Klein:
    """Make a Klein app with a route for each operation, which calls ``answer``."""
    app = make_app()

    def add(operation: Operation[Any, Any, Any]) -> None:
        path = operation.route.path.replace("{", "<").replace("}", ">")

        @app.route(ROOT + path, methods=[operation.route.method], endpoint=operation.name)
        def answered(web: WebRequest, **in_path: str) -> Any:
            return answer(web.request, operation, in_path)

    for each in operations:
        add(each)

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # these requests are WebRequests
    def failed(web: WebRequest, failure: Failure) -> None:
        answer_failure(web.request, failure)

    return app
