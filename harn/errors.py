"""
Every exception that harn raises on purpose, as one tree.

::

    HarnError
    ├── ManifestInvalid             the manifest's author can fix it; carries every problem
    ├── SecretUnavailable           a secret reference that resolves to nothing
    ├── Refused                     a request that is answered with a problem document
    │   ├── CredentialsRejected     401
    │   │   ├── SignatureMissing
    │   │   ├── SignatureMismatch
    │   │   ├── SignatureStale
    │   │   └── SignatureReplayed
    │   ├── PayloadInvalid          400
    │   │   └── MediaTypeUnsupported    415
    │   ├── MessageMalformed        400, and the connection is closed
    │   ├── OriginRefused           403
    │   ├── AddressRefused          403
    │   ├── NotPermitted            403
    │   ├── RouteUnknown            404
    │   │   ├── GenerationUnknown   a generation whose content is not kept
    │   │   └── DeliveryUnknown     no delivery of this event is kept
    │   ├── MethodNotAllowed        405
    │   ├── BodyTimedOut            408
    │   ├── NothingPending          409
    │   │   └── WrongState          a delivery or job that is not in a state in which this can be done
    │   ├── BackupRefused           409: a file that is there already, or something else than a backup
    │   ├── BackupFailed            500: a backup that is not complete; nothing is left of it
    │   ├── PreconditionFailed      412
    │   ├── BodyTooLarge            413
    │   ├── TargetTooLong           414, and the connection is closed
    │   ├── RateExceeded            429
    │   ├── HeadersTooLarge         431, and the connection is closed
    │   ├── CodingUnsupported       501, and the connection is closed
    │   ├── Saturated               503
    │   └── ShuttingDown            503
    ├── StoreError
    │   ├── EventLogUnavailable     503; nothing was written, no claim was used up
    │   │   ├── EventLogGone        the same until a restart: its files were removed beneath the server
    │   │   └── ServerFenced        the same until the server continues under a new number: others have its deliveries
    │   ├── ClaimTaken              a claim that must be new was taken before
    │   └── StateDirectoryUnusable  the state directory is locked, another user's, or not writable
    ├── ListenerUnusable            the listener's address or certificate cannot be used
    ├── PackageUnknown              no such package, or it brings no such connector
    ├── FilesHang                   reading a file blocks: its file system does not answer
    ├── StageFailed                 a reload's stage that failed; names the stage and its problems
    │   ├── StageTimedOut
    │   └── FilesUnsettled          files that change while they are read
    ├── AlertNotSent                an alert that could not be sent this time
    ├── GateShut                    a connector emitted an event while its generation does not serve
    ├── AttemptFailed               one attempt of one delivery; each class names its ``error_class``
    │   ├── HandlerRaised
    │   ├── HandlerTimedOut
    │   ├── HandlerRejected         to the dead letters immediately
    │   ├── HandlerRetryAfter       names the time of the next attempt
    │   ├── ResultInvalid
    │   ├── ResultTooLarge
    │   ├── PredicateRaised
    │   ├── DestinationFailed
    │   └── InterpreterDied
    └── CallInterrupted             not an attempt: the interpreter ended during this call, by another call's fault

Which class means which HTTP status is decided in ``harn.listener.problems`` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harn.model.problem import Problem


class HarnError(Exception):
    """The root of the tree."""


class ManifestInvalid(HarnError):
    """
    The manifest, or what it names, cannot be used.

    :ivar stage: ``parse``, ``validate`` or ``resolve``.
    :ivar problems: every problem found, each once, in the order of the file; never empty.
    """

    def __init__(self, problems: Sequence[Problem], stage: str = "validate") -> None:
        files = {file: place for place, file in enumerate(dict.fromkeys(problem.file for problem in problems))}
        self.problems: tuple[Problem, ...] = tuple(
            sorted(dict.fromkeys(problems), key=lambda problem: (files[problem.file], problem.line or 0))
        )
        self.stage = stage
        super().__init__("; ".join(str(problem) for problem in self.problems))


class SecretUnavailable(HarnError):
    """A secret reference is malformed, or no provider of the chain has it."""


class Refused(HarnError):
    """
    A request that is refused; ``str()`` is the ``detail`` that its sender reads.

    :ivar retry_after: seconds to wait before another try, or None.
    """

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class CredentialsRejected(Refused):
    """No credentials, or wrong ones."""


class SignatureMissing(CredentialsRejected):
    """The header that should carry the signature is absent."""


class SignatureMismatch(CredentialsRejected):
    """No configured secret made this signature."""


class SignatureStale(CredentialsRejected):
    """The signed time stamp is outside its window."""


class SignatureReplayed(CredentialsRejected):
    """A signature that is accepted only once was sent again."""


class PayloadInvalid(Refused):
    """The body does not have the provider's format."""


class MessageMalformed(Refused):
    """The request's head or framing is not plain HTTP/1.1; the connection cannot be read further."""


class CodingUnsupported(Refused):
    """The body has an unsupported transfer coding; the connection cannot be read further."""


class MediaTypeUnsupported(PayloadInvalid):
    """The body's content coding, or its charset, is not supported."""


class AddressRefused(Refused):
    """The sender's address is not among those that the trigger allows."""


class OriginRefused(Refused):
    """The ``Origin`` header is not allowed, or the ``Host``: a page of another site may have sent the request."""


class NotPermitted(Refused):
    """The caller is authenticated, but its role does not allow the operation."""


class RouteUnknown(Refused):
    """No trigger and no resource of the server has this path."""


class GenerationUnknown(RouteUnknown):
    """No generation of this number served, or its content is not stored any more."""


class DeliveryUnknown(RouteUnknown):
    """No delivery has this id, or it is not stored any more."""


class MethodNotAllowed(Refused):
    """The path exists, the method does not."""

    def __init__(self, detail: str, allow: Sequence[str]) -> None:
        super().__init__(detail)
        self.allow: tuple[str, ...] = tuple(allow)


class BodyTimedOut(Refused):
    """The body was not complete in time."""


class NothingPending(Refused):
    """There is nothing to confirm, finish or abort."""


class BackupRefused(Refused):
    """A backup cannot be written to, or read from, this file."""


class BackupFailed(Refused):
    """A backup is not complete, or not sound: the disk is full, the event log damaged; nothing is left of it."""


class WrongState(NothingPending):
    """This cannot be done with a delivery or job in its state; the message says which that is."""


class PreconditionFailed(Refused):
    """
    ``If-Match`` names another generation than the live one.

    :ivar if_match: the entity tag that was named.
    :ivar etag: that of the live generation. Both may be None.
    """

    def __init__(self, detail: str, *, if_match: str | None = None, etag: str | None = None) -> None:
        super().__init__(detail)
        self.if_match = if_match
        self.etag = etag


class BodyTooLarge(Refused):
    """The body is over the limit."""


class TargetTooLong(Refused):
    """The request line is over the limit; the connection cannot be read further."""


class HeadersTooLarge(Refused):
    """The headers are over a limit of their size or number; the connection cannot be read further."""


class RateExceeded(Refused):
    """The source is over its configured rate."""


class Saturated(Refused):
    """The server holds as much undurable work as it may."""


class ShuttingDown(Refused):
    """The server accepts no more work."""


class StoreError(HarnError):
    """A read or write of durable state failed."""


class EventLogUnavailable(StoreError):
    """The unit was not written; no dedupe key of it is used up."""


class EventLogGone(EventLogUnavailable):
    """The event log is no longer where the server opened it, or belongs to another server: only a restart recovers."""


class ServerFenced(EventLogUnavailable):
    """Other servers took over the deliveries of this one, which was silent; it may continue under a new number."""


class ClaimTaken(StoreError):
    """A claim that had to be new was taken before; nothing of the unit was written."""


class StateDirectoryUnusable(StoreError):
    """The state directory is held by another server, or cannot be used by this user."""


class ListenerUnusable(HarnError):
    """The address cannot be listened on, or the certificate and its key cannot be used."""


class PackageUnknown(HarnError):
    """There is no such package, or it brings no connector of that name."""


class FilesHang(HarnError):
    """A file cannot be read now: it, or one before it, blocks. The message names it, and since when."""


class StageFailed(HarnError):
    """
    A stage of a reload failed; nothing live has changed.

    :ivar stage: the stage's name.
    :ivar problems: what to show, possibly empty.
    """

    def __init__(self, stage: str, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.stage = stage
        self.problems: tuple[Problem, ...] = tuple(problems)


class StageTimedOut(StageFailed):
    """The stage did not end within ``[orchestrator.reload] timeout``, or cannot, since a file read blocks."""


class FilesUnsettled(StageFailed):
    """The files changed while they were read, again and again: no two readings were equal."""


class AlertNotSent(HarnError):
    """An alert could not be sent; ``retry_after`` is how many seconds its receiver asked to wait, or None."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GateShut(HarnError):
    """The connector's generation does not serve, or no longer: the event was not accepted, keep it."""


class AttemptFailed(HarnError):
    """
    One attempt of a delivery failed.

    :cvar error_class: the name under which attempts, dead letters and metrics count it.
    :cvar outcome: the attempt's outcome in ``trigger.attempts``.
    :ivar traceback: the user's frames, as text, where user code raised; else empty.
    :ivar output: the last lines that user code printed or logged; bounded.
    """

    error_class: ClassVar[str] = "unknown"
    outcome: ClassVar[str] = "failed"
    traceback: str = ""
    output: str = ""


class HandlerRaised(AttemptFailed):
    """The handler raised; ``str()`` is ``Type: message``."""

    error_class = "handler_error"


class HandlerTimedOut(AttemptFailed):
    """The handler ran longer than the trigger's ``timeout``."""

    error_class = "handler_timeout"
    outcome = "timeout"


class HandlerRejected(AttemptFailed):
    """The handler raised ``harn.handlers.Reject``: no further attempt."""

    error_class = "rejected"
    outcome = "denied"


class HandlerRetryAfter(AttemptFailed):
    """
    The handler chose another attempt, with ``harn.handlers.RetryAfter``: no failure of its code.

    :ivar seconds: the wait it asked for; None: as the trigger's ``retry`` says.
    """

    error_class = "retry_after"

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class ResultInvalid(AttemptFailed):
    """The handler's result is not a JSON value."""

    error_class = "result_invalid"


class ResultTooLarge(AttemptFailed):
    """The handler's result is over the limit of one result."""

    error_class = "result_too_large"


class PredicateRaised(AttemptFailed):
    """The trigger's ``when`` raised or did not return a truth value."""

    error_class = "predicate_error"


class DestinationFailed(AttemptFailed):
    """A destination other than a local function could not be given the delivery."""

    error_class = "destination_failed"


class InterpreterDied(AttemptFailed):
    """The interpreter's process ended, and only this call can have ended it."""

    error_class = "interpreter_died"


class CallInterrupted(HarnError):
    """
    The interpreter's process ended during this call, but the call is not proven to be the cause.

    :ivar suspect: true after a death without a known cause (this call may have been it); false when another call is
        known to be the cause.
    """

    def __init__(self, message: str, *, suspect: bool) -> None:
        super().__init__(message)
        self.suspect = suspect
