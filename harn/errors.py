"""
Every exception that harn raises on purpose, as one tree.

::

    HarnError
    ├── ManifestInvalid             the manifest's author can mend it; carries every problem
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
    │   ├── NotPermitted            403
    │   ├── RouteUnknown            404
    │   │   └── GenerationUnknown   a generation whose content is not kept
    │   ├── MethodNotAllowed        405
    │   ├── BodyTimedOut            408
    │   ├── NothingPending          409
    │   ├── PreconditionFailed      412
    │   ├── BodyTooLarge            413
    │   ├── RateExceeded            429
    │   ├── CodingUnsupported       501, and the connection is closed
    │   ├── Saturated               503
    │   └── ShuttingDown            503
    ├── StoreError
    │   ├── EventLogUnavailable     503; nothing was written, no claim was used up
    │   │   └── EventLogGone        the same until a restart: its files were removed beneath the server
    │   ├── ClaimTaken              a claim that must be new is not
    │   └── StateDirectoryUnusable  the state directory is locked, not ours, or not writable
    ├── ListenerUnusable            the listener's address or certificate cannot be used
    ├── PackageUnknown              no such package, or it brings no such connector
    ├── FilesHang                   a file that does not come: its file system does not answer
    ├── StageFailed                 a reload's stage that failed; names the stage and its problems
    │   ├── StageTimedOut
    │   └── FilesUnsettled          files that change while they are read
    ├── GateShut                    a connector's own event came while its generation does not serve
    ├── AttemptFailed               one attempt of one delivery; each class names its ``error_class``
    │   ├── HandlerRaised
    │   ├── HandlerTimedOut
    │   ├── HandlerRejected         to the dead letters at once
    │   ├── HandlerRetryAfter       names the time of the next attempt
    │   ├── ResultInvalid
    │   ├── ResultTooLarge
    │   ├── PredicateRaised
    │   └── InterpreterDied
    └── CallInterrupted             not an attempt: the interpreter went away under a bystander

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
    :ivar problems: every problem found, in the order of the file; never empty.
    """

    def __init__(self, problems: Sequence[Problem], stage: str = "validate") -> None:
        files = {file: place for place, file in enumerate(dict.fromkeys(problem.file for problem in problems))}
        self.problems: tuple[Problem, ...] = tuple(
            sorted(problems, key=lambda problem: (files[problem.file], problem.line or 0))
        )
        self.stage = stage
        super().__init__("; ".join(str(problem) for problem in self.problems))


class SecretUnavailable(HarnError):
    """A secret reference is malformed, or no provider of the chain knows it."""


class Refused(HarnError):
    """
    A request that is not taken; ``str()`` is the ``detail`` that its sender reads.

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
    """A signature that is accepted only once came again."""


class PayloadInvalid(Refused):
    """The body is not what the provider's format allows."""


class MessageMalformed(Refused):
    """The request's head or framing is not plain HTTP/1.1; nothing after it can be read."""


class CodingUnsupported(Refused):
    """The body has a transfer coding that the server does not know; nothing after it can be read."""


class MediaTypeUnsupported(PayloadInvalid):
    """The body's content coding, or its charset, is none that we decode."""


class OriginRefused(Refused):
    """The ``Origin`` header is not on the allow list."""


class NotPermitted(Refused):
    """The caller is known, and its role does not allow what it asked for."""


class RouteUnknown(Refused):
    """No trigger and no resource of ours lives at this path."""


class GenerationUnknown(RouteUnknown):
    """No generation of this number served, or its content is not kept any more."""


class MethodNotAllowed(Refused):
    """The path exists, the method does not."""

    def __init__(self, detail: str, allow: Sequence[str]) -> None:
        super().__init__(detail)
        self.allow: tuple[str, ...] = tuple(allow)


class BodyTimedOut(Refused):
    """The body was not complete in time."""


class NothingPending(Refused):
    """There is nothing to confirm, finish or abort."""


class PreconditionFailed(Refused):
    """``If-Match`` names another generation than the live one."""


class BodyTooLarge(Refused):
    """The body is over the limit."""


class RateExceeded(Refused):
    """The source is over its configured rate."""


class Saturated(Refused):
    """The server has as much undurable work in hand as it may hold."""


class ShuttingDown(Refused):
    """The server takes no more work."""


class StoreError(HarnError):
    """What is durable could not be read or written."""


class EventLogUnavailable(StoreError):
    """The unit was not written; no dedupe key of it is used up."""


class EventLogGone(EventLogUnavailable):
    """The event log is no longer where the server opened it, or no longer this server's: only a restart ends that."""


class ClaimTaken(StoreError):
    """A claim that had to be new was taken before; nothing of the unit was written."""


class StateDirectoryUnusable(StoreError):
    """The state directory is held by another server, or cannot be used by this user."""


class ListenerUnusable(HarnError):
    """The address cannot be listened on, or the certificate and its key cannot be used."""


class PackageUnknown(HarnError):
    """There is no such package, or it brings no connector of that name."""


class FilesHang(HarnError):
    """A file cannot be read now: it, or one before it, does not come. The message says which, and since when."""


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
    """The stage did not end within ``[orchestrator.reload] timeout``, or cannot, since a file hangs."""


class FilesUnsettled(StageFailed):
    """The files changed while they were read, again and again: no two readings were equal."""


class GateShut(HarnError):
    """The connector's generation does not serve, or no longer: the event was not taken, keep it."""


class AttemptFailed(HarnError):
    """
    One attempt of a delivery failed.

    :cvar error_class: the name under which attempts, dead letters and metrics count it.
    :cvar outcome: the attempt's outcome in ``trigger.attempts``.
    """

    error_class: ClassVar[str] = "unknown"
    outcome: ClassVar[str] = "failed"


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
    """The handler raised ``harn.handlers.RetryAfter``; ``seconds`` is the wait it asked for."""

    error_class = "retry_after"

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class ResultInvalid(AttemptFailed):
    """The handler's result is no JSON value."""

    error_class = "result_invalid"


class ResultTooLarge(AttemptFailed):
    """The handler's result is over the limit of one result."""

    error_class = "result_too_large"


class PredicateRaised(AttemptFailed):
    """The trigger's ``when`` raised or gave no truth value."""

    error_class = "predicate_error"


class InterpreterDied(AttemptFailed):
    """The interpreter's process ended, and this call alone can have ended it."""

    error_class = "interpreter_died"


class CallInterrupted(HarnError):
    """
    The interpreter went away while this call was in it, through no proven fault of its own.

    :ivar suspect: true after a death that nobody owned up to (this call may have been the cause);
        false when another call is known to be the cause.
    """

    def __init__(self, message: str, *, suspect: bool) -> None:
        super().__init__(message)
        self.suspect = suspect
