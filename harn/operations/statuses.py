"""The HTTP statuses of errors: one table, for the answers of the listener and for the document of the admin API."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from harn import errors


class Status(Struct, frozen=True):
    """A status code, and the ``title`` of its problem document."""

    code: int
    title: str


INTERNAL = Status(500, "Internal error")

STATUSES: Mapping[type[BaseException], Status] = {
    errors.CredentialsRejected: Status(401, "Unauthorized"),
    errors.SignatureMissing: Status(401, "Signature missing"),
    errors.SignatureMismatch: Status(401, "Signature wrong"),
    errors.SignatureStale: Status(401, "Signature out of its time window"),
    errors.SignatureReplayed: Status(401, "Signature used before"),
    errors.PayloadInvalid: Status(400, "Bad request"),
    errors.MessageMalformed: Status(400, "Bad request"),
    errors.MediaTypeUnsupported: Status(415, "Unsupported media type"),
    errors.OriginRefused: Status(403, "Origin not allowed"),
    errors.AddressRefused: Status(403, "Address not allowed"),
    errors.NotPermitted: Status(403, "Not permitted"),
    errors.RouteUnknown: Status(404, "Not found"),
    errors.MethodNotAllowed: Status(405, "Method not allowed"),
    errors.BodyTimedOut: Status(408, "Request timed out"),
    errors.NothingPending: Status(409, "Nothing pending"),
    errors.BackupRefused: Status(409, "Backup refused"),
    errors.BackupFailed: Status(500, "Backup failed"),
    errors.PreconditionFailed: Status(412, "Precondition failed"),
    errors.BodyTooLarge: Status(413, "Body too large"),
    errors.TargetTooLong: Status(414, "URI too long"),
    errors.HeadersTooLarge: Status(431, "Request header fields too large"),
    errors.RateExceeded: Status(429, "Rate exceeded"),
    errors.CodingUnsupported: Status(501, "Transfer coding not supported"),
    errors.Saturated: Status(503, "Saturated"),
    errors.ShuttingDown: Status(503, "Shutting down"),
    errors.EventLogUnavailable: Status(503, "Event log unavailable"),
    errors.ClaimTaken: Status(401, "Signature used before"),
}
"""The status of each error class, which holds for the classes below it, too."""


def first_of(code: int) -> Status | None:
    """Return the first status of the table with this code; None if there is none."""
    return next((each for each in STATUSES.values() if each.code == code), None)


def status_of(kind: type[BaseException], table: Mapping[type[BaseException], Status] = STATUSES) -> Status:
    """Return the status of an error class: that of the nearest class above it in the table, else 500."""
    for ancestor in kind.__mro__:
        if ancestor in table:
            return table[ancestor]
    return INTERNAL
