"""
Ingest: the handling of a request to a trigger's route. As this is the hot path, it has plain callbacks.

Verify, normalize, match, filter, compute the dedupe key, accept: all steps use the version that the request leased when
its headers were complete. During a ramp it leased two, and one is chosen for the event. 200 is sent when the event is
on disk.
"""

from __future__ import annotations

import msgspec
from msgspec import structs
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.auth.authenticator import CREDENTIAL_HEADERS, LiveCredentials
from harn.connectors.fetching import NotFetched
from harn.connectors.interfaces import Events, Normalized, Reject, Respond
from harn.dispatch.decisions import Arrival, Decided, decide
from harn.dispatch.intake import Intake, Taken, Taking
from harn.errors import BodyTimedOut, ClaimTaken, EventLogUnavailable, RateExceeded, Refused, Saturated, ShuttingDown
from harn.lifecycle import Backpressure, Chosen, HandshakeCaptured, Lifecycle, RequestRefused, Settled
from harn.listener.admission import Admission
from harn.listener.answers import Answers, Expected, fixed_answer, handler_answer, shared_answer, usual_answer
from harn.listener.codings import codings_of, decode
from harn.listener.peers import check_peer
from harn.listener.place import POST_METHODS, Place
from harn.listener.problems import problem_for, status_of
from harn.listener.refusals import note_refusal
from harn.listener.request import HarnRequest
from harn.model.delivery import Claim
from harn.model.display import without
from harn.model.exchange import InboundRequest
from harn.triggers.binding import BindingVersion
from harn.triggers.routing import Route
from harn.waiting import ReactorThreads

_PASSING = (RateExceeded, Saturated, ShuttingDown, BodyTimedOut, NotFetched)  # it may be accepted later
_FIRST_ERROR, _LAST_ERROR = 400, 599

EXAMINED_AT_ONCE = 2
"""Large bodies verified and parsed at the same time: each uses a thread, and memory for the parsed value."""

log = Logger(namespace="harn.listener")


class Ingest(Place):
    """
    The resource of every public route.

    :param threads: runs the work on bodies above `harn.listener.phases.Limits.threaded_body`.
    :param credentials: the credentials of the live generation, which are redacted before an event is stored.
    """

    challenge = b"WWW-Authenticate: Signature\r\n"
    outlives_client = True

    def __init__(
        self,
        clock: IReactorTime,
        intake: Intake,
        admission: Admission,
        lifecycle: Lifecycle,
        threads: ReactorThreads,
        credentials: LiveCredentials,
    ) -> None:
        self._clock = clock
        self._intake = intake
        self._admission = admission
        self._lifecycle = lifecycle
        self._threads = threads
        self._examining = DeferredSemaphore(EXAMINED_AT_ONCE)
        self._credentials = credentials
        self._answers = Answers()
        lifecycle.subscribe(Settled, self._answers.settled)

    # When the headers are complete

    def endpoint(self, request: HarnRequest) -> str:
        """Return the route's path."""
        route = request.route
        assert route is not None
        return route.path

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """Allow POST only."""
        return POST_METHODS

    def body_limit(self, request: HarnRequest) -> int:
        """Return the manifest's limit."""
        return request.site.max_body_bytes

    def admit(self, request: HarnRequest, length: int) -> None:
        """Acquire the lease, unless the server is shutting down or at its limits."""
        route = request.route
        assert route is not None
        binding = route.binding
        self._lifecycle.emit(route.received)
        for other in route.others:
            self._lifecycle.emit(other.received)
        try:
            if request.site.quiescing:
                raise ShuttingDown("the server is shutting down; send the request again")
            if binding.spec.allow_from or binding.spec.client_ca is not None:
                check_peer(request, binding.spec)
            self._check_sender(request)
            self._admission.admit(binding.id, length)
        except Refused as error:
            self._refused(route, frozenset(), status_of(type(error)).code)
            if isinstance(error, RateExceeded | Saturated):
                self._lifecycle.emit(Backpressure("ingest", "reject"))
            raise
        route.lease()

    def _check_sender(self, request: HarnRequest) -> None:
        """
        Refuse a sender by the headers alone, for example without a signature; checking the signature needs the body.

        :raises CredentialsRejected: this class or a subclass: the connector refuses the headers.
        """
        check = getattr(_route(request).receiver.value, "check_headers", None)
        if check is None:
            return
        try:
            check(request.headers)
        except (Refused, KeyboardInterrupt):
            raise
        except BaseException as error:  # third-party code may raise anything; only this request fails
            raise RuntimeError(f"check_headers of the connector failed: {error!r}") from error

    def over(self, request: HarnRequest, status: int | None) -> None:
        """Release the lease and the counted bytes, and report a refusal."""
        if request.entered is not None:
            self._admission.release(request.entered)
            request.entered = None
        route = request.route
        assert route is not None
        # A handler's response is not a refusal, whatever its status is.
        is_refused = status is not None and _FIRST_ERROR <= status <= _LAST_ERROR and not request.is_taken
        if is_refused or route.ramp is not None or route.others:
            self._refused(route, request.reached, status if is_refused else None)
        route.release()

    def _refused(self, route: Route, reached: frozenset[BindingVersion], status: int | None) -> None:
        """
        Report for each trigger of a path that no version was chosen on its ramp, and that the request was refused.

        :param reached: the versions that were chosen.
        :param status: the status of the refusal; None if the request was not refused.
        """
        for member in route.members:
            binding = member.binding
            own = tuple(version.key for version in reached if version.id == binding.id)
            if member.ramp is not None and not own:
                self._lifecycle.emit(Chosen(binding.id, (binding.key,)))
            if status is not None:
                refused = RequestRefused(binding.id, binding.spec.provider, own or (binding.key,), status)
                self._lifecycle.emit(refused)

    # When the body is complete

    def serve(self, request: HarnRequest) -> None:
        """Verify, normalize, accept, answer."""
        self.receive(request)

    def receive(self, request: HarnRequest, guard: Claim | None = None) -> None:
        """
        Continue with a request whose sender may post here.

        :param guard: a claim that must be new for the request to count.
        """
        route = request.route
        assert route is not None
        headers, body, received_at, line = request.headers, request.body, request.received_at, request.line
        inbound = InboundRequest(
            method="POST",
            path=line.path_text if request.path is line.path else request.path.decode("latin-1"),
            query=line.query_text,
            headers=headers,
            body=body,
            received_at=received_at,
        )
        if not headers.keys().isdisjoint(CREDENTIAL_HEADERS):  # most senders have none that could be the server's
            headers = self._credentials.authenticator().without_ours(headers)
        hidden: tuple[str, ...] = getattr(route.receiver.value, "credential_headers", ())
        if hidden:
            headers = without(hidden, headers)
        arrival = Arrival(headers=headers, body=body, received_at=received_at, guard=guard)
        if request.received > request.site.limits.threaded_body or "content-encoding" in headers:
            self._examine_in_thread(request, route, inbound, arrival)
            return
        try:
            route.receiver.value.verify(inbound, received_at)
            self._examined(_examine(route, inbound, arrival), request)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # third-party code may raise anything; only this request fails
            self._failed(error, request)

    def _examine_in_thread(self, request: HarnRequest, route: Route, inbound: InboundRequest, arrival: Arrival) -> None:
        """Continue when a thread is free to verify the body; until then count the body as unverified."""
        try:
            request.hold_unverified()
        except Saturated as error:
            self._failed(error, request)
            return
        limit = request.site.max_body_bytes
        examining = self._examining.run(self._threads.call, _examine_coded, route, inbound, arrival, limit)
        examining.addCallbacks(
            lambda examined: self._examined(examined, request),
            lambda failure: self._failed(failure.value, request),
        )
        examining.addErrback(self.stumbled, request)

    def _examined(self, examined: Reject | Examined, request: HarnRequest) -> None:
        """Store the events."""
        if isinstance(examined, Reject):
            note_refusal(request, examined.status, examined.detail)
            request.answer(problem_for(examined.status, examined.detail))
            return
        if request.unverified:
            request.verified()
        length = request.received + examined.grown if examined.grown > 0 else request.received
        try:
            self._admission.enter(length)
        except Saturated as error:
            self._lifecycle.emit(Backpressure("ingest", "reject"))
            self._failed(error, request)
            return
        request.entered = length
        request.reached = examined.decided.reached
        route = request.route
        assert route is not None
        if route.others or route.responds:
            self._keep_shared(request, route, examined)
            return
        normalized, decided = examined.normalized, examined.decided
        self._intake.begin(Answering(route.binding, decided, ingest=self, request=request, normalized=normalized))

    def _keep_shared(self, request: HarnRequest, route: Route, examined: Examined) -> None:
        """Store the events of a path that several triggers share, or of a trigger with ``respond``."""
        for _, decided in examined.others:
            request.reached |= decided.reached
        decisions = ((route.binding, examined.decided), *examined.others)
        expected = self._answers.expect_one(decided for _, decided in decisions)
        taken = self._intake.keep_shared(decisions)
        taken.addCallback(self._answer_shared, examined.normalized, request, expected)
        taken.addErrback(self._shared_failed, request, expected)
        taken.addErrback(self.stumbled, request)

    def _answer_shared(
        self, taken: tuple[Taken, ...], normalized: Events | Respond, request: HarnRequest, expected: Expected | None
    ) -> None:
        """Send the response: now, or when the handler has given one, or when the time for that has passed."""
        request.is_taken = True
        if isinstance(normalized, Respond) and normalized.captured is not None:
            self.captured(_route(request), normalized.captured)
        members = _route(request).members
        usual = usual_answer(taken[0], normalized, members[0].binding.id)
        if len(members) > 1 and isinstance(normalized, Events):
            usual = shared_answer([member.binding.id for member in members], taken)
        if expected is None or not any(expected.event_id in each.event_ids for each in taken):
            if expected is not None:
                expected.end(None)
            request.send(*fixed_answer(members, request.reached, normalized, usual))
            return
        # The events are durable: a slow handler must not use up the limit for other requests.
        if request.entered is not None:
            self._admission.release(request.entered)
            request.entered = None
        request.body = b""
        waiting = expected.wait(self._clock)
        waiting.addCallback(lambda ended: request.send(*handler_answer(ended, normalized, usual)))
        waiting.addErrback(self.stumbled, request)

    def captured(self, route: Route, secret: str) -> None:
        """Emit `HandshakeCaptured` with the secret that a sender transmitted in a handshake."""
        spec = route.binding.spec
        self._lifecycle.emit(HandshakeCaptured(spec.id, spec.provider, secret))

    def _shared_failed(self, failure: Failure, request: HarnRequest, expected: Expected | None) -> None:
        """Answer that the events are not on disk."""
        if expected is not None:
            expected.end(None)
        assert failure.value is not None
        self._failed(failure.value, request)

    def not_taken(self, error: Exception, request: HarnRequest) -> None:
        """Answer that the events are not on disk."""
        self._failed(error, request)

    def _failed(self, error: BaseException, request: HarnRequest) -> None:
        """Answer with the problem document of an error."""
        if not isinstance(error, Refused | ClaimTaken | EventLogUnavailable):
            log.failure(
                "trigger {trigger}: the connector or the intake failed on a request",
                Failure(error),
                trigger=_route(request).binding.id,
            )
        request.refuse(error)

    def refusal_lines(self, request: HarnRequest, error: BaseException) -> bytes:
        """Return the connector's lines for an error that the sender must correct, whenever it is found."""
        if request.route is None or not isinstance(error, Refused) or isinstance(error, _PASSING):
            return b""
        lines: bytes = getattr(request.route.receiver.value, "final_headers", b"")
        return lines

    def stumbled(self, failure: Failure, request: HarnRequest) -> None:
        """Log an exception in our own callback, and answer the request with its problem document."""
        log.failure("answering a request failed", failure)
        assert failure.value is not None
        request.refuse(failure.value)


def _route(request: HarnRequest) -> Route:
    route = request.route
    assert route is not None
    return route


class Answering(Taking, kw_only=True, eq=False):
    """Answers a request when its events are on disk."""

    ingest: Ingest
    request: HarnRequest
    normalized: Events | Respond

    def taken(self, taken: Taken) -> None:
        """See `Taking.taken`."""
        normalized = self.normalized
        try:
            if type(normalized) is Respond and normalized.captured is not None:
                self.ingest.captured(_route(self.request), normalized.captured)
            self.request.send(*usual_answer(taken, normalized, self.binding.id))
        except Exception:
            self.ingest.stumbled(Failure(), self.request)

    def not_taken(self, error: Exception) -> None:
        """See `Taking.not_taken`."""
        try:
            self.ingest.not_taken(error, self.request)
        except Exception:
            self.ingest.stumbled(Failure(), self.request)


class Examined(msgspec.Struct, frozen=True, gc=False):
    """
    The connector's result for a request, and the decision of the binding's rules.

    :ivar others: the decisions of the other triggers of a shared path, each with its binding.
    :ivar grown: the size of the decoded body less that of the received one (bytes).
    """

    normalized: Events | Respond
    decided: Decided
    grown: int = 0
    others: tuple[tuple[BindingVersion, Decided], ...] = ()


def _examine_coded(route: Route, inbound: InboundRequest, arrival: Arrival, limit: int) -> Reject | Examined:
    """
    Verify a request, decode its body, and apply the rules. Pure computation, which runs in a thread.

    The signature covers the bytes as received; every later step uses the body without its content coding.

    :param limit: the largest size of the decoded body (bytes).
    """
    route.receiver.value.verify(inbound, inbound.received_at)
    codings = codings_of(inbound.headers)
    if not codings:
        return _examine(route, inbound, arrival)
    body = decode(inbound.body, codings, limit)
    grown = len(body) - len(inbound.body)
    return _examine(route, structs.replace(inbound, body=body), structs.replace(arrival, body=body), grown)


def _examine(route: Route, inbound: InboundRequest, arrival: Arrival, grown: int = 0) -> Reject | Examined:
    """Run connector and rules on a verified request without a content coding; for ``grown``, see `Examined`."""
    receiver = route.receiver.value
    normalized: Normalized = receiver.normalize(inbound)
    if type(normalized) is not Events:
        if isinstance(normalized, Reject):
            return normalized
        if not isinstance(normalized, Events | Respond):
            raise TypeError(f"normalize must return Events, Respond or Reject, got {type(normalized).__name__}")
    claims = getattr(receiver, "always_claim", False)
    decided = decide(route.binding, arrival, normalized.events, always_claim=claims, ramp=route.ramp)
    if not route.others:
        return Examined(normalized, decided, grown)
    others = tuple(
        (each.binding, decide(each.binding, arrival, normalized.events, always_claim=claims, ramp=each.ramp))
        for each in route.others
    )
    return Examined(normalized, decided, grown, others)
