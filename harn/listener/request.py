"""
One request: accepted or refused when its headers are in, held in memory, answered in one write.

``twisted.web`` parses forms, keeps large bodies in temporary files and builds an answer's head header by header; an
ingest request needs none of that. Only public methods are overridden here; `harn.listener.channel` calls `begin` where
``HTTPChannel`` would call ``gotLength``.
"""

# ruff: noqa: N802
# Names are those of twisted.web, whose own functions are not typed.
# mypy: allow-untyped-calls
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from attrs import evolve
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import RESPONSES
from twisted.web.http_headers import Headers

from harn.errors import (
    BodyTimedOut,
    BodyTooLarge,
    ClaimTaken,
    MethodNotAllowed,
    OriginRefused,
    PayloadInvalid,
    Refused,
    Saturated,
)
from harn.listener.framing import check_head
from harn.listener.place import EMPTY, Place, Tree
from harn.listener.problems import Response, problem_of
from harn.listener.refusals import note_refusal
from harn.triggers.binding import BindingVersion
from harn.triggers.routing import Route

if TYPE_CHECKING:
    from harn.listener.channel import HarnChannel
    from harn.listener.site import HarnSite

JSON = b"application/json"
_BODILESS = frozenset((204, 304))
_STATUS_LINES = {code: b" %d %s\r\n" % (code, words) for code, words in RESPONSES.items()}

log = Logger(namespace="harn.listener")


class HarnRequest(server.Request):
    """
    A request to one of the site's resources.

    :ivar headers: the headers as they came: names in lower case, values without the space around them.
    :ivar tree: the route table when the headers were in; the request uses it until it ends.
    :ivar route: the route of a trigger, else None.
    :ivar place: the resource that answers, once it is found.
    :ivar query: the query as received, without ``?``.
    :ivar body: the whole body, when it is complete.
    :ivar began_at: when the headers were in (seconds of the site's clock).
    :ivar received_at: when the body was complete, and until then when the headers were (seconds, Unix).
    :ivar source: the network of its sender, see `harn.listener.channel.HarnChannel.source`.
    :ivar unverified: bytes of its body that are counted while its sender is not verified.
    :ivar entered: for its resource: bytes that are counted as undurable work, None before they are. ``reached``: on a
        route with a ramp, the versions that were chosen for its events.
    """

    channel: HarnChannel | None  # type: ignore[assignment]  # None once the client is gone
    site: HarnSite
    defaultContentType = b"text/plain; charset=utf-8"  # noqa: N815 - twisted.web's name

    tree: Tree
    route: Route | None = None
    place: Place | None = None
    query = b""
    body: bytes = b""
    received = 0
    began_at = 0.0
    received_at = 0.0
    unverified = 0
    source = ""
    entered: int | None = None
    reached: frozenset[BindingVersion] = frozenset()
    is_complete = False
    answered: int | None = None
    _buffer: bytearray | None = None
    _held: Headers | None = None
    _lowered: Mapping[str, str] | None = None
    _admitted = False
    _serving = False
    _limit = 0
    _length: int | None = None

    @property
    def requestHeaders(self) -> Headers:
        """The headers as ``twisted.web`` holds them, made when a page reads them; ingest never does."""
        if self._held is None:
            self._held = Headers()
            for name, value in self.headers:
                self._held.addRawHeader(name.encode("latin-1"), value)
        return self._held

    @requestHeaders.setter
    def requestHeaders(self, _: Headers) -> None:
        """Called when the request is made; the parent sets empty headers."""
        self.headers: list[tuple[str, bytes]] = []

    # Called by the channel

    def begin(self, method: bytes, target: bytes, version: bytes, length: int | None) -> None:
        """
        Accept or refuse the request, now that its headers are in.

        :param length: bytes of the body; None if it comes in chunks.
        """
        channel, self._length = self.channel, length
        assert channel is not None
        site = self.site = channel.site
        self.method, self.uri, self.clientproto = method, target, version
        self.began_at, self.received_at = site.clock.seconds(), site.wall.seconds()
        tree = self.tree = site.tree
        self.path, _, self.query = target.partition(b"?")
        route = self.route = tree.find(self.path)
        try:
            check_head(target, version, self.lower_headers(), self.headers)
        except Refused as error:
            self.cut_off(self.problem(error))
            return
        try:
            place = self.place = site.place_of(self) if route is None else site.place_of_route(route)
            self._enter(place, channel, length)
        except Exception as error:
            if not isinstance(error, Refused):
                log.failure("deciding about {method} {path} failed", method=self.method, path=self.path)
            self._answer_early(self.problem(error), length)

    def _enter(self, place: Place, channel: HarnChannel, length: int | None) -> None:
        """Check the request, and have its place admit it, or raise `Refused`; answer ``OPTIONS`` for the place."""
        site = self.site
        if channel.is_surplus and not place.answers_always:
            raise Saturated("the server has as many connections as it may; send the request again", retry_after=1)
        if site.origins is not None:
            self._check_origin(site.origins)
        methods = place.methods(self)
        if self.method not in methods:
            self._refuse_method(methods)
        if self.method == b"OPTIONS":
            allow = b"Allow: " + b", ".join(methods) + b"\r\n"
            self._answer_early(Response(204, b"", b"", allow), length)
            return
        self._limit = place.body_limit(self)
        if length is not None and length > self._limit:
            self._refuse_size()
        place.admit(self, length or 0)
        self._admitted = True
        site.in_flight += 1

    def gotLength(self, length: int | None) -> None:
        """Do nothing: no file is needed for the body."""

    def handleContentChunk(self, data: bytes) -> None:
        """Store a piece of the body, unless it will not be read."""
        if self.answered is not None or not data:
            return
        before = self.received
        self.received = before + len(data)
        try:
            if self.received > self._limit:
                self._refuse_size()
            if self.received != self._length or before:
                self.count_unverified(len(data))  # a body in one piece is verified at once
        except Refused as error:
            self.cut_off(self.problem(error))
            return
        if before == 0:
            self.body = data
        else:
            if self._buffer is None:
                self._buffer = bytearray(self.body)
            self._buffer += data

    def count_unverified(self, length: int) -> None:
        """
        Count bytes that are held for a sender who is not verified yet.

        :raises Saturated: the limit is reached.
        """
        if not self.unverified and self.channel is not None:
            self.source = self.channel.source
        self.site.unverified.grow(self, length)

    def hold_unverified(self) -> None:
        """
        Count the complete body while it waits for its sender to be verified.

        :raises Saturated: the limit is reached.
        """
        if not self.unverified:
            self.count_unverified(len(self.body))
            self.site.unverified.complete(self)

    def verified(self) -> None:
        """Called when the sender is verified: stop counting the body."""
        if self.unverified:
            self.site.unverified.release(self)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Serve the request, now that its body is complete."""
        self.is_complete = True
        if self.answered is not None:
            self.finish()
            return
        if self.unverified:
            self.site.unverified.complete(self)
        if self._buffer is not None:
            self.body, self._buffer = bytes(self._buffer), None
        self.received_at = self.site.wall.seconds()
        self._serving = True
        assert self.place is not None
        try:
            self.place.serve(self)
        except Exception:
            self.processingFailed(Failure())

    def connectionLost(self, reason: Failure) -> None:
        """Release the resource, unless work that was begun must end first."""
        super().connectionLost(reason)
        if not (self._serving and self.place is not None and self.place.outlives_client):
            self._over(None)

    def finish(self) -> None:
        """Finish the answer. One that was not written by `send` is counted here."""
        if self.answered is None:
            self._count(self.code)
        super().finish()

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer 500 after an exception in our code; the client gets no detail."""
        log.failure("answering {method} {path} failed", reason, method=self.method, path=self.path)
        if not self.startedWriting:
            assert reason.value is not None
            self.refuse(reason.value)
        return reason

    def getRequestHostname(self) -> bytes:
        """Return one name for all: no route depends on ``Host``."""
        return b"harn"

    # Called by resources

    @property
    def generation_header(self) -> bytes:
        """The ``Harn-Generation`` line, for answers of a trigger's route."""
        return b"" if self.route is None else self.tree.header

    def lower_headers(self) -> Mapping[str, str]:
        """Return the headers as connectors see them: names in lower case, repeated ones joined, as latin-1."""
        if self._lowered is None:  # used when the headers are in, and again when the body is
            lowered: dict[str, str] = {}
            for name, value in self.headers:
                text = value.decode("latin-1")
                lowered[name] = text if name not in lowered else f"{lowered[name]}, {text}"
            self._lowered = lowered
        return self._lowered

    def query_options(self) -> dict[str, str]:
        """
        Return the query's options; of a repeated one all values, with commas between them.

        :raises PayloadInvalid: there are too many.
        """
        try:
            parsed = parse_qs(self.query.decode("latin-1"), keep_blank_values=True, max_num_fields=32)
        except ValueError:
            raise PayloadInvalid("the query has more than 32 options") from None
        return {name: ",".join(values) for name, values in parsed.items()}

    def problem(self, error: BaseException) -> Response:
        """Return the problem document of an error, which is the answer; a 401 has a challenge."""
        answer = problem_of(error)
        if isinstance(error, Refused | ClaimTaken):
            note_refusal(self, answer.status, str(error))
        if answer.status == 401 and self.place is not None:
            return evolve(answer, headers=answer.headers + self.place.challenge)
        return answer

    def refuse(self, error: BaseException) -> None:
        """Answer with the problem document of an error."""
        self.answer(self.problem(error))

    def answer(self, answer: Response) -> None:
        """Send an answer."""
        self.send(answer.status, answer.body, answer.content_type, answer.headers)

    def send(self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b"") -> None:
        """
        Send the answer in one write, and release the request. It is not an error if the client is gone.

        :param headers: further header lines, each ending in CRLF.
        """
        if self.answered is not None:
            return
        self._count(status)
        channel = self.channel
        if channel is not None:
            self.code = status
            self.startedWriting = 1
            self.sentLength = len(body)
            if self.site.closes:
                channel.persistent = False
            parts = [
                self.clientproto,
                _STATUS_LINES.get(status) or b" %d Unknown status\r\n" % status,
                self.site.date_header(),
                self.generation_header,
                headers,
            ]
            if status not in _BODILESS:
                parts.append(b"Content-Type: %s\r\nContent-Length: %d\r\n" % (content_type, len(body)))
            parts.append(b"\r\n" if channel.persistent else b"Connection: close\r\n\r\n")
            if self.method != b"HEAD" and status not in _BODILESS:
                parts.append(body)
            channel.write(b"".join(parts))
            if self.is_complete:
                super().finish()
        self._over(status)

    def give_way(self) -> None:
        """Called when the body is the slowest, and its memory is needed."""
        self.cut_off(self.problem(BodyTimedOut("the body came too slowly, and others need its room", retry_after=1)))

    def cut_off(self, answer: Response) -> None:
        """Answer at once although the body is still coming, then close; the rest of the body is discarded."""
        channel = self.channel
        if channel is not None:
            channel.persistent = False
        self.answer(answer)
        if channel is not None:
            channel.loseConnection()

    # Internal

    def _answer_early(self, answer: Response, length: int | None) -> None:
        """
        Answer before the body has arrived.

        A small body is read and discarded, and the connection kept. For a large body, one of unknown length, or a
        client that waits for ``100 Continue``, the connection is closed: whether the body will be sent is unknown.
        """
        if length == 0 or (
            length is not None and length <= self.site.limits.skipped_body and "expect" not in self.lower_headers()
        ):
            self.answer(answer)
        else:
            self.cut_off(answer)

    def _check_origin(self, allowed: frozenset[bytes]) -> None:
        origin = [value for name, value in self.headers if name == "origin"]
        if any(value not in allowed for value in origin):
            raise OriginRefused(f"origin {b', '.join(origin).decode('latin-1')!r} is not allowed")

    def _refuse_method(self, methods: tuple[bytes, ...]) -> None:
        allow = [method.decode("ascii") for method in methods]
        raise MethodNotAllowed(f"{self.method.decode('latin-1')} is not allowed here; use {', '.join(allow)}", allow)

    def _refuse_size(self) -> None:
        raise BodyTooLarge(f"the body is larger than {self._limit} bytes")

    def _count(self, status: int) -> None:
        """Count the answer in the metrics."""
        self.answered = status
        site, place = self.site, self.place
        site.metrics.http_request(
            site.unknown_endpoint if place is None else place.endpoint(self),
            self.method.decode("latin-1"),
            status,
            site.clock.seconds() - self.began_at,
            self.received,
        )

    def _over(self, status: int | None) -> None:
        """Release the resource; once."""
        if self._admitted:
            self._admitted = False
            site, place = self.site, self.place
            site.in_flight -= 1
            assert place is not None
            self.verified()
            place.over(self, status)
            self.body, self._buffer = b"", None  # a connection that is being closed may take long
            if site.quiescing:
                site.check_quiet()
        # Klein's closures keep a request in a cycle; frozen at that moment (`gc.freeze`), it would never be freed, nor
        # its values.
        self.tree = EMPTY
