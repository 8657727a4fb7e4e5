"""The admin API: the HTTP routes of the server's operations, and their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from harn.errors import CredentialsRejected, NotPermitted, Refused
from harn.listener.admin_auth import AdminAuth, shielded
from harn.listener.admin_refusals import AdminRefusals
from harn.listener.place import KleinPlace
from harn.listener.push import CHALLENGE
from harn.listener.request import JSON, HarnRequest
from harn.listener.web import render
from harn.operations.http import Arguments, read_parameters
from harn.operations.model import Caller, Operation, Reply
from harn.operations.registry import Operations, check_role

if TYPE_CHECKING:
    from klein import Klein

ROOT = "/admin"
"""The prefix of every path of the admin API; in the metrics, also the name of paths that have no endpoint."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Admin(KleinPlace):
    """
    The resource that serves the routes of all operations.

    A request without credentials in its headers gets the same answer whether or not there is such a route. An operation
    that has begun continues when its client disconnects.
    """

    challenge = CHALLENGE
    is_own = True

    def __init__(self, auth: AdminAuth, operations: Operations, refusals: AdminRefusals) -> None:
        self._auth = auth
        self._refusals = refusals
        self._operations = operations
        self._endpoints = frozenset("/".join((ROOT + each.route.path).split("/")[:3]) for each in operations)

    def make_app(self) -> Klein:
        """See `KleinPlace.make_app`."""
        from harn.listener.klein_pages import make_admin_app

        return make_admin_app(ROOT, self._operations, self)

    def endpoint(self, request: HarnRequest) -> str:
        """Return the first two segments of the path if an operation has them, so that no id becomes a label."""
        known = "/".join(request.path.decode("latin-1").split("/")[:3])
        return known if known in self._endpoints else ROOT

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Return the methods of the path's routes.

        :raises OriginRefused: a browser sent the request for a page of another site.
        :raises CredentialsRejected: the headers show no credentials.
        :raises RouteUnknown: no operation has this path.
        """
        from harn.listener.klein_pages import methods_of

        try:
            request.check_own()
            self._auth.check_headers(request)
        except Refused as error:
            self._refusals.note(request, error)
            raise
        return methods_of(self.app, request)

    def body_limit(self, request: HarnRequest) -> int:
        """Return the largest body of any operation."""
        return request.site.limits.admin_body

    def serve(self, request: HarnRequest) -> None:
        """Render the page of Klein."""
        render(request)

    async def answer(self, request: HarnRequest, operation: Operation[Any, Any, Any], path: dict[str, str]) -> None:
        """Authenticate, read the parameters, run the operation, send its result."""
        caller = await self._permitted(request, operation)
        arguments = Arguments(path=path, query=request.query_options(), headers=request.headers, body=request.body)
        wanted = read_parameters(operation, arguments)
        reply: Reply[Any] = await shielded(self._operations.run(operation, caller, wanted))
        headers = b"" if reply.etag is None else b"ETag: " + reply.etag.encode("latin-1", "replace") + b"\r\n"
        request.send(reply.status, _encode(reply.result), JSON, headers)

    async def _permitted(self, request: HarnRequest, operation: Operation[Any, Any, Any]) -> Caller:
        """
        Return the caller, if its role allows the operation.

        :raises CredentialsRejected: or one of its classes.
        :raises NotPermitted: names the role that it needs.
        :raises EventLogUnavailable: a signature cannot be claimed.
        """
        try:
            caller = await self._auth.identify(request)
        except CredentialsRejected as error:
            self._refusals.note(request, error)
            raise
        try:
            check_role(operation, caller)
        except NotPermitted as error:
            self._refusals.note(request, error, caller)
            raise
        return caller
