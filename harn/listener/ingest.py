"""
Ingest: a request to a trigger's route, from its lease to its answer. The hot path: plain callbacks.

verify, normalize, match, filter, dedupe key, accept: all on the version whose lease the request took when its headers
were in. 200 is said when the event is on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.connectors.model import Events, Normalized, Reject, Respond
from harn.dispatch.intake import Arrival, Intake, Taken
from harn.errors import ClaimTaken, EventLogUnavailable, RateExceeded, Refused, Saturated, ShuttingDown
from harn.listener.admission import Admission
from harn.listener.place import POST_METHODS, Place
from harn.listener.problem import problem_for
from harn.listener.request import HarnRequest
from harn.model.delivery import Claim
from harn.model.headers import redact
from harn.model.inbound import InboundRequest
from harn.observability.metrics import Metrics
from harn.triggers.route import Route

_encode = msgspec.json.Encoder().encode
_ACCEPTED = b'{"status":"accepted","event_id":"%s","trigger_id":%s,"binding":%s}'
_ONE = b'{"status":"%s","trigger_id":%s}'
_SEVERAL = (
    b'{"status":"accepted","events_accepted":%d,"duplicates_dropped":%d,"ignored":%d,"event_ids":%s,"trigger_id":%s}'
)
_FIRST_ERROR, _LAST_ERROR = 400, 599

log = Logger(namespace="harn.listener")
InThread = Callable[[Callable[[], Normalized]], Deferred[Normalized]]


class Ingest(Place):
    """
    The place of every public route.

    :param in_thread: runs a function in a thread; for bodies above `harn.listener.limits.Limits.threaded_body`.
    """

    challenge = b"WWW-Authenticate: Signature\r\n"
    outlives_client = True

    def __init__(
        self,
        clock: IReactorTime,
        intake: Intake,
        admission: Admission,
        metrics: Metrics,
        in_thread: InThread,
    ) -> None:
        self._clock = clock
        self._intake = intake
        self._admission = admission
        self._metrics = metrics
        self._in_thread = in_thread

    # When the headers are in

    def endpoint(self, request: HarnRequest) -> str:
        """The route's path."""
        return _route(request).path

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """Only POST."""
        return POST_METHODS

    def body_limit(self, request: HarnRequest) -> int:
        """What the manifest says."""
        return request.site.max_body_bytes

    def admit(self, request: HarnRequest, length: int) -> None:
        """Take the lease, unless the server is going down or has enough to do."""
        route = _route(request)
        binding = route.binding
        binding.received += 1
        self._metrics.trigger(binding.id, binding.spec.provider).received += 1
        try:
            if request.site.quiescing:
                raise ShuttingDown("the server is shutting down; send the request again")
            self._check_sender(request)
            self._admission.admit(binding.id, length)
        except Refused as error:
            binding.failed += 1
            if isinstance(error, RateExceeded | Saturated):
                self._metrics.backpressure("ingest", "reject")
            raise
        route.lease()

    def _check_sender(self, request: HarnRequest) -> None:
        """Let in anybody: on a public route the provider's signature decides, and it needs the body."""

    def grow(self, request: HarnRequest, length: int) -> None:
        """Count what arrived as undurable."""
        request.held += length
        self._admission.grow(length)

    def over(self, request: HarnRequest, status: int | None) -> None:
        """Release the lease, and what was counted."""
        self._admission.release(request.held, entered=request.entered)
        route = _route(request)
        if status is not None and _FIRST_ERROR <= status <= _LAST_ERROR:
            route.binding.failed += 1
        route.release()

    # When the body is complete

    def serve(self, request: HarnRequest) -> None:
        """Verify, normalize, accept, answer."""
        self.receive(request)

    def receive(self, request: HarnRequest, guard: Claim | None = None) -> None:
        """
        Go on with a request whose sender may post here.

        :param guard: a claim that must be new for the request to count.
        """
        request.entered = True
        self._admission.enter()
        receiver = _route(request).receiver.value
        inbound = InboundRequest(
            method="POST",
            path=request.path.decode("latin-1"),
            query=request.query.decode("latin-1"),
            headers=request.lower_headers(),
            body=request.body,
            received_at=request.received_at,
        )
        if len(inbound.body) > request.site.limits.threaded_body:
            examined = self._in_thread(lambda: _examine(receiver, inbound))
            examined.addCallbacks(
                lambda normalized: self._normalized(normalized, inbound, request, guard),
                lambda failure: self._failed(failure.value, request),
            )
            examined.addErrback(self._stumbled, request)
            return
        try:
            self._normalized(_examine(receiver, inbound), inbound, request, guard)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a third party's code may raise anything; it costs this request alone
            self._failed(error, request)

    def _normalized(
        self, normalized: Normalized, inbound: InboundRequest, request: HarnRequest, guard: Claim | None
    ) -> None:
        """Hand over what the connector made of it."""
        if isinstance(normalized, Reject):
            request.answer(problem_for(normalized.status, normalized.detail))
            return
        if not isinstance(normalized, Events | Respond):
            self._failed(TypeError(f"normalize gave {type(normalized).__name__}"), request)
            return
        route = _route(request)
        taken = self._intake.take(
            route.binding,
            Arrival(headers=redact(inbound.headers), body=inbound.body, received_at=inbound.received_at, guard=guard),
            normalized.events,
            always_claim=getattr(route.receiver.value, "always_claim", False),
        )
        taken.addCallbacks(
            self._taken,
            lambda failure: self._failed(failure.value, request),
            callbackArgs=(normalized, request),
        )
        taken.addErrback(self._stumbled, request)

    def _taken(self, taken: Taken, normalized: Events | Respond, request: HarnRequest) -> None:
        """Answer: what had to be kept is on disk."""
        if isinstance(normalized, Respond):
            request.send(normalized.status, normalized.body, _media_type(normalized.content_type))
            return
        binding = _route(request).binding
        trigger_id = _encode(binding.id)
        if len(normalized.events) > 1:
            ids = _encode(taken.event_ids)
            body = _SEVERAL % (len(taken.event_ids), taken.duplicates, taken.ignored, ids, trigger_id)
        elif taken.event_ids:
            body = _ACCEPTED % (taken.event_ids[0].encode("ascii"), trigger_id, _encode(binding.key))
        else:
            body = _ONE % (b"duplicate_dropped" if taken.duplicates else b"ignored", trigger_id)
        request.send(200, body)

    def _failed(self, error: BaseException, request: HarnRequest) -> None:
        """Answer with what the error means."""
        if not isinstance(error, Refused | ClaimTaken | EventLogUnavailable):
            log.failure(
                "trigger {trigger}: the connector or the intake failed on a request",
                Failure(error),
                trigger=_route(request).binding.id,
            )
        request.refuse(error)

    def _stumbled(self, failure: Failure, request: HarnRequest) -> None:
        """Our own callback failed: say so, and still let go of the request."""
        log.failure("answering a request failed", failure)
        assert failure.value is not None
        request.refuse(failure.value)


def _route(request: HarnRequest) -> Route:
    route = request.route
    assert route is not None
    return route


def _examine(receiver: Any, inbound: InboundRequest) -> Normalized:
    """Do the connector's part. Pure computation, so it may run in a thread."""
    receiver.verify(inbound, inbound.received_at)
    normalized: Normalized = receiver.normalize(inbound)
    return normalized


def _media_type(text: str) -> bytes:
    """Give a connector's content type as a header may carry it."""
    return text.encode("latin-1", "replace").translate(None, b"\r\n\x00")
