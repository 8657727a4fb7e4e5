"""Which error class means which HTTP status: the one table."""

from __future__ import annotations

from attrs import frozen
from twisted.web.http import RESPONSES

from harn import errors


@frozen
class Status:
    """A status code, and the ``title`` of the problem document that goes with it."""

    code: int
    title: str


_TABLE: dict[type[BaseException], Status] = {
    errors.CredentialsRejected: Status(401, "Unauthorized"),
    errors.SignatureMissing: Status(401, "Signature missing"),
    errors.SignatureMismatch: Status(401, "Signature wrong"),
    errors.SignatureStale: Status(401, "Signature out of its time window"),
    errors.SignatureReplayed: Status(401, "Signature used before"),
    errors.PayloadInvalid: Status(400, "Bad request"),
    errors.MessageMalformed: Status(400, "Bad request"),
    errors.MediaTypeUnsupported: Status(415, "Unsupported media type"),
    errors.OriginRefused: Status(403, "Origin not allowed"),
    errors.RouteUnknown: Status(404, "Not found"),
    errors.MethodNotAllowed: Status(405, "Method not allowed"),
    errors.BodyTimedOut: Status(408, "Request timed out"),
    errors.NothingPending: Status(409, "Nothing pending"),
    errors.PreconditionFailed: Status(412, "Precondition failed"),
    errors.BodyTooLarge: Status(413, "Body too large"),
    errors.RateExceeded: Status(429, "Rate exceeded"),
    errors.CodingUnsupported: Status(501, "Transfer coding not supported"),
    errors.Saturated: Status(503, "Saturated"),
    errors.ShuttingDown: Status(503, "Shutting down"),
    errors.EventLogUnavailable: Status(503, "Event log unavailable"),
    errors.ClaimTaken: Status(401, "Signature used before"),
}

INTERNAL = Status(500, "Internal error")


def status_of(kind: type[BaseException]) -> Status:
    """Give the status of an error class: that of the nearest class above it in the table, else 500."""
    for ancestor in kind.__mro__:
        if ancestor in _TABLE:
            return _TABLE[ancestor]
    return INTERNAL


def reason_of(code: int) -> str:
    """Give the words that HTTP has for a status code."""
    phrase = RESPONSES.get(code, b"Unknown status")
    return phrase.decode("ascii")
