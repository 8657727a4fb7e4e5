"""The server's public pages: health, readiness, metrics."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.errors import HarnError, PayloadInvalid, Refused
from harn.listener.place import READ_METHODS, Place
from harn.listener.problems import Response, problem
from harn.listener.request import HarnRequest
from harn.observability.metrics import CONTENT_TYPE, Metrics
from harn.operations.statuses import Status
from harn.server import Readiness
from harn.waiting import ReactorThreads

log = Logger(namespace="harn.listener")


TEXT = b"text/plain; charset=utf-8"
_NOT_READY = Status(503, "Not ready")


class Page(Place):
    """
    One page, rendered for each request.

    :param name: its path, for the metrics.
    """

    answers_always = True

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, request: HarnRequest) -> Response:
        """
        Return the response.

        :raises Refused: the request is invalid.
        """
        raise NotImplementedError

    def endpoint(self, request: HarnRequest) -> str:
        """Return the page's path."""
        return self._name

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """Allow GET and HEAD only."""
        return READ_METHODS

    def body_limit(self, request: HarnRequest) -> int:
        """Return a small limit, as the body of a GET is ignored."""
        return 1024

    def serve(self, request: HarnRequest) -> None:
        """Send the page, or the problem document of the error that `read` raises."""
        try:
            answer = self.read(request)
        except Refused as error:
            answer = request.problem(error)
        request.answer(answer)


class Exposition(Page):
    """
    The metrics, rendered in a thread: those of ten thousand triggers take seconds.

    :param threads: renders them.
    """

    outlives_client = True
    is_own = True

    def __init__(self, name: str, metrics: Metrics, threads: ReactorThreads) -> None:
        super().__init__(name)
        self._metrics = metrics
        self._threads = threads

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Allow GET and HEAD only, except to browsers that show a page of another site.

        :raises OriginRefused: a browser may have sent the request for a page of another site.
        """
        request.check_own()
        return super().methods(request)

    def serve(self, request: HarnRequest) -> None:
        """Read the gauges on the reactor thread, then render them in a thread."""

        def failed(failure: Failure) -> None:
            log.failure("rendering the metrics failed", failure)
            request.answer(request.problem(failure.value or HarnError("unknown")))

        self._threads.call(self._metrics.scrape().render).addCallbacks(
            lambda text: request.answer(Response(200, text, CONTENT_TYPE)), failed
        )


class Health(Page):
    """Answers while the process runs."""

    def read(self, request: HarnRequest) -> Response:
        """Return ``ok``."""
        return Response(200, b"ok", TEXT)


class Ready(Page):
    """
    The readiness page: whether the server should receive requests; if not, the reasons, for example ``starting``.

    :param readiness: the reasons why the server is not ready.
    """

    def __init__(self, name: str, readiness: Readiness) -> None:
        super().__init__(name)
        self._readiness = readiness

    def read(self, request: HarnRequest) -> Response:
        """
        Return ``ready``, or 503 with the reasons.

        :raises PayloadInvalid: the ``generation`` in the query is not a number.
        """
        wanted = request.query_options().get("generation")
        reasons = self._readiness.reasons()
        if request.site.quiescing and "draining" not in reasons:
            reasons.append("draining")
        if wanted is not None:
            if not (wanted.isascii() and wanted.isdigit() and len(wanted) < 16):
                raise PayloadInvalid(f"generation must be a whole number, got {wanted!r}")
            if request.site.generation < int(wanted):
                reasons.append(f"generation {request.site.generation} serves, {int(wanted)} does not yet")
        if reasons:
            return problem(_NOT_READY, "; ".join(reasons), headers=b"Retry-After: 1\r\n", extra={"reasons": reasons})
        return Response(200, b"ready", TEXT, request.tree.header)


def make_pages(metrics: Metrics, readiness: Readiness, threads: ReactorThreads) -> dict[str, Place]:
    """
    Make the pages, by path.

    :param threads: renders the metrics.
    """
    return {
        "/health": Health("/health"),
        "/healthz": Health("/healthz"),
        "/readyz": Ready("/readyz", readiness),
        "/metrics": Exposition("/metrics", metrics, threads),
    }
