"""The base of our Klein apps: problem documents for errors, and work that outlives its client."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod

from harn.errors import EventLogUnavailable, Refused
from harn.listener.problems import unknown_path
from harn.listener.request import HarnRequest
from harn.waiting import shield

T = TypeVar("T")
log = Logger(namespace="harn.listener")


def make_app() -> Klein:
    """Make an app without redirects: a path is right or unknown."""
    app = Klein()
    app.url_map.merge_slashes = False
    return app


def methods_of(app: Klein, request: HarnRequest) -> tuple[bytes, ...]:
    """
    Return an app's methods for the request's path, sorted.

    :raises RouteUnknown: none.
    """
    try:
        path = unquote_to_bytes(request.path).decode("utf-8")
        adapter = app.url_map.bind("harn", path_info=path)
        adapter.match(path, method="\N{INFORMATION SEPARATOR ONE}")  # a method that no rule has
    except WrongMethod as error:
        known = {*(error.valid_methods or ()), "OPTIONS"}
        return tuple(sorted(method.encode("ascii") for method in known))
    except (UnicodeDecodeError, HTTPException):
        pass
    raise unknown_path(request)


def shielded(work: Awaitable[T]) -> Deferred[T]:
    """Wait for ``work``; it goes on when Klein cancels the waiting, since the client has gone."""
    return shield(work, _log_late)


def _log_late(failure: Failure) -> None:
    if not failure.check(Refused):
        log.failure("work whose client had gone failed", failure)


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
