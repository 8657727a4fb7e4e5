"""Errors as HTTP responses: status codes, and RFC 9457 problem documents with their header fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from twisted.web.http import RESPONSES

from harn.connectors.fetching import NotFetched
from harn.errors import (
    ClaimTaken,
    EventLogUnavailable,
    MediaTypeUnsupported,
    MethodNotAllowed,
    PreconditionFailed,
    Refused,
    RouteUnknown,
    ShuttingDown,
)
from harn.listener.codings import ACCEPTED
from harn.operations import statuses
from harn.operations.statuses import INTERNAL, STATUSES, Status
from harn.store.worker import EventLogUnreadable

_TABLE = {**STATUSES, NotFetched: Status(503, "Not fetched yet")}


def status_of(kind: type[BaseException]) -> Status:
    """Return the status of an error class; see `harn.operations.statuses`."""
    return statuses.status_of(kind, _TABLE)


def reason_of(code: int) -> str:
    """Return HTTP's reason phrase of a status code."""
    phrase = RESPONSES.get(code, b"Unknown status")
    return phrase.decode("ascii")


PROBLEM_JSON = b"application/problem+json"
RETRY_AFTER = 5
"""Seconds of ``Retry-After`` for an error without a time of its own."""

_SHOWN = 500
_encode = msgspec.json.Encoder().encode
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\uffff]")


class Response(Struct, frozen=True):
    """
    A complete response.

    :ivar headers: further field lines, each ending in CRLF.
    """

    status: int
    body: bytes
    content_type: bytes
    headers: bytes = b""

    def last_bytes(self, common: bytes) -> bytes:
        """
        Return the response as bytes, for a client whose request could not be parsed; the connection is closed after it.

        :param common: the field lines of every response, each ending in CRLF.
        """
        return b"HTTP/1.1 %d %s\r\n%s%sContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
            self.status,
            reason_of(self.status).encode("ascii"),
            common,
            self.headers,
            self.content_type,
            len(self.body),
            self.body,
        )


def problem(status: Status, detail: str, *, headers: bytes = b"", extra: Mapping[str, Any] | None = None) -> Response:
    """
    Return a problem document.

    ``type`` is ``about:blank``: the status identifies the kind of problem.

    :param extra: further members of the document.
    """
    document = {"type": "about:blank", "title": status.title, "status": status.code, "detail": shown(detail)}
    return Response(status.code, _encode({**document, **(extra or {})}), PROBLEM_JSON, headers)


def problem_of(error: BaseException) -> Response:
    """Return the problem document of an error; unexpected errors become a generic 500 without detail."""
    status = status_of(type(error))
    if status is INTERNAL:
        return problem(INTERNAL, "the server failed on this request; its log has the reason")
    headers = b""
    if status.code in (429, 503, 408):
        wait = error.retry_after if isinstance(error, Refused) and error.retry_after is not None else RETRY_AFTER
        headers = b"Retry-After: %d\r\n" % max(1, wait)
    elif isinstance(error, MediaTypeUnsupported):
        headers = b"Accept-Encoding: " + ACCEPTED.encode("ascii") + b"\r\n"
    elif isinstance(error, MethodNotAllowed):
        headers = b"Allow: " + ", ".join(error.allow).encode("ascii") + b"\r\n"
    elif isinstance(error, PreconditionFailed) and error.etag is not None:
        headers = b"ETag: " + error.etag.encode("latin-1", "replace") + b"\r\n"
        tags = {"if_match": error.if_match, "etag": error.etag}
        return problem(status, _detail(error), headers=headers, extra=tags)
    return problem(status, _detail(error), headers=headers)


def problem_for(code: int, detail: str) -> Response:
    """Return the problem document of a status that a connector chose."""
    return problem(Status(code, reason_of(code)), detail)


def shown(text: str) -> str:
    """Return text from an untrusted sender as it may be shown: printable, and of limited length."""
    text = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _detail(error: BaseException) -> str:
    """Return the text of an error that clients may read; errors of a store are only logged."""
    if isinstance(error, EventLogUnreadable):
        return "the event log cannot be read now; ask again in a moment"
    if isinstance(error, EventLogUnavailable):
        return "the event log cannot be written to; nothing was kept, so send the request again"
    if isinstance(error, ClaimTaken):
        return "this signature was used before; sign each request afresh"
    if isinstance(error, ShuttingDown) and not str(error):
        return "the server is shutting down"
    return str(error)


def unknown_path(request: Any) -> RouteUnknown:
    """Return the error of a path without a resource."""
    return RouteUnknown(f"no trigger and no page is at {request.path.decode('latin-1')}")
