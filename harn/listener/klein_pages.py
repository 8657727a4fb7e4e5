"""
The Klein apps: that of the admin API, with a route for each operation, and that of a2a-push.

The import of Klein takes a while, so `harn.listener.place.KleinPlace` imports this module when an app is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod
from werkzeug.routing import BaseConverter

from harn.errors import EventLogUnavailable, Refused
from harn.listener.problems import unknown_path
from harn.listener.request import HarnRequest
from harn.listener.web import WebRequest
from harn.operations.model import Operation
from harn.operations.registry import Operations

if TYPE_CHECKING:
    from harn.listener.admin import Admin
    from harn.listener.push import Push

log = Logger(namespace="harn.listener")


def make_app() -> Klein:
    """Return an app that does not redirect paths with a missing or a further slash."""
    app = Klein()
    app.url_map.merge_slashes = False
    return app


def methods_of(app: Klein, request: HarnRequest) -> tuple[bytes, ...]:
    """
    Return an app's methods for the request's path, sorted.

    :raises RouteUnknown: the app has no route for the path.
    """
    try:
        path = unquote_to_bytes(request.path).decode("utf-8")
        adapter = app.url_map.bind("harn", path_info=path)
        adapter.match(path, method="\N{INFORMATION SEPARATOR ONE}")  # a method that no route has
    except WrongMethod as error:
        known = {*(error.valid_methods or ()), "OPTIONS"}
        return tuple(sorted(method.encode("ascii") for method in known))
    except (UnicodeDecodeError, HTTPException):
        pass
    raise unknown_path(request)


def answer_failure(request: HarnRequest, failure: Failure) -> None:
    """Answer with the problem document of an error, and log an error that is not meant for the client."""
    if failure.check(CancelledError):
        return
    error = failure.value
    assert error is not None
    if isinstance(error, HTTPException):
        error = unknown_path(request)
    if not isinstance(error, Refused | EventLogUnavailable):
        log.failure("{method} {path} failed", failure, method=request.method, path=request.path)
    request.refuse(error)


def make_admin_app(root: str, operations: Operations, admin: Admin) -> Klein:
    """Make a Klein app with a route below ``root`` for each operation, whose requests ``admin`` answers."""
    app = make_app()

    def add(operation: Operation[Any, Any, Any]) -> None:
        path = operation.route.path.replace("{", "<").replace("}", ">")

        @app.route(root + path, methods=[operation.route.method], endpoint=operation.name)
        def answered(web: WebRequest, **in_path: str) -> Any:
            return admin.answer(web.request, operation, in_path)

    for each in operations:
        add(each)

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # these requests are WebRequests
    def failed(web: WebRequest, failure: Failure) -> None:
        answer_failure(web.request, failure)

    return app


class AnyPath(BaseConverter):
    """Matches a path of any number of segments, empty ones included."""

    regex = ".*"
    part_isolating = False


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
