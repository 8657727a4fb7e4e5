"""
One request: accepted or refused when its headers are complete, held in memory, answered in one write.

It is not a request of ``twisted.web``, which ingest does not need. For the places that answer with Klein,
`harn.listener.web` makes a ``twisted.web.server.Request`` from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from msgspec.structs import replace
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES

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
from harn.listener.head import RequestHead
from harn.listener.place import EMPTY, Place, Tree
from harn.listener.problems import Response, problem_of
from harn.listener.refusals import note_refusal
from harn.triggers.binding import BindingVersion
from harn.triggers.routing import Route

if TYPE_CHECKING:
    from harn.listener.channel import HarnChannel
    from harn.listener.web import WebRequest

log = Logger(namespace="harn.listener")

JSON = b"application/json"
_BODILESS = frozenset((204, 304))
_STATUS_LINES = {code: b" %d %s\r\n" % (code, words) for code, words in RESPONSES.items()}


@lru_cache(maxsize=512)
def _beginning(version: bytes, status: int, content_type: bytes, length: int | None) -> bytes:
    """
    Return the status line and the first field lines of a response; cached, as most responses have the same ones.

    :param length: the value of ``Content-Length``; None for a stream.
    """
    line = version + (_STATUS_LINES.get(status) or b" %d Unknown status\r\n" % status)
    if status in _BODILESS:
        return line
    size = b"" if length is None else b"Content-Length: %d\r\n" % length
    return b"%bContent-Type: %b\r\n%b" % (line, content_type, size)


class HarnRequest:
    """
    A request to one of the site's places.

    :param channel: its connection.
    :param head: its head.
    :ivar channel: its connection; None after the response, or if the client has disconnected.
    :ivar headers: the header fields as connectors receive them; see `harn.listener.head.RequestHead.headers`.
    :ivar line: the request line.
    :ivar path: the path of the target, also of an absolute URL.
    :ivar length: the length of the body in bytes; None if it is chunked.
    :ivar tree: the tree of routes that was live when the headers were complete; used until the request ends.
    :ivar route: the route of a trigger, else None.
    :ivar place: the place that answers; None until it is found.
    :ivar body: the whole body, when it is complete.
    :ivar received: the number of bytes of the body received so far.
    :ivar began_at: when the headers were complete (seconds of the site's clock).
    :ivar received_at: when the body was complete; until then, when the headers were (seconds, Unix).
    :ivar source: the network of the sender; see `harn.listener.channel.HarnChannel.source`.
    :ivar unverified: the bytes of the body that are counted as unverified.
    :ivar entered: the bytes that admission counts as not yet durable, set by the place; None before.
    :ivar reached: on a route with a ramp, the versions that were chosen for its events.
    :ivar is_taken: whether its events are on disk, so that no response is a refusal.
    :ivar envelopes: while traces are on, the envelopes of its first event for each trigger; None until it is verified.
    :ivar answered: the status of the response; None before.
    :ivar web: the request that Klein renders, for a place that answers with Klein; else None.
    """

    tree: Tree
    length: int | None = 0
    route: Route | None = None
    place: Place | None = None
    body: bytes = b""
    received = 0
    began_at = 0.0
    received_at = 0.0
    unverified = 0
    source = ""
    entered: int | None = None
    reached: frozenset[BindingVersion] = frozenset()
    is_taken = False
    envelopes: Mapping[str, bytes] | None = None
    answered: int | None = None
    web: WebRequest | None = None
    _pieces: bytearray | None = None
    _is_complete = False
    _admitted = False
    _serving = False
    _limit = 0

    def __init__(self, channel: HarnChannel, head: RequestHead) -> None:
        self.channel: HarnChannel | None = channel
        self.site = channel.site
        self._head = head
        self.headers: Mapping[str, str] = head.headers
        line = self.line = head.line
        self.method = line.method
        self.path = line.path

    @property
    def uri(self) -> bytes:
        """Return the target as received."""
        return self.line.target

    @property
    def query(self) -> bytes:
        """Return the query of the target, without ``?``."""
        return self.line.query

    # Called by the channel

    def begin(self) -> None:
        """Accept or refuse the request. Called when its headers are complete."""
        channel, site, head = self.channel, self.site, self._head
        assert channel is not None
        self.began_at, self.received_at = site.clock.seconds(), site.wall.seconds()
        tree = self.tree = site.tree
        line = head.line
        route = self.route = None if channel.is_own else tree.find(line.route)
        try:
            self.length = check_head(line, head.headers, head.fields)
        except Refused as error:
            self.cut_off(self.problem(error))
            return
        try:
            place = self.place = site.place_of(self) if route is None else site.place_of_route(route)
            self._enter(place, channel)
        except Exception as error:
            if not isinstance(error, Refused):
                log.failure("deciding about {method} {path} failed", method=self.method, path=self.path)
            self._answer_early(self.problem(error))

    def _enter(self, place: Place, channel: HarnChannel) -> None:
        """Check the request and call `Place.admit`, or raise `Refused`; answer ``OPTIONS`` instead of the place."""
        site, length = self.site, self.length
        if channel.is_surplus and not place.answers_always:
            raise Saturated("the server has as many connections as it may; send the request again", retry_after=1)
        if site.origins is not None and not place.checks_origin:
            self._check_origin(site.origins)
        methods = place.methods(self)
        if self.method not in methods:
            self._refuse_method(methods)
        if self.method == b"OPTIONS":
            allow = b"Allow: " + b", ".join(methods) + b"\r\n"
            self._answer_early(Response(204, b"", b"", allow))
            return
        self._limit = place.body_limit(self)
        if length is not None and length > self._limit:
            self._refuse_size()
        place.admit(self, length or 0)
        self._admitted = True
        site.in_flight += 1
        if self.tree.rest is not None:
            self.tree = self.tree.rest

    def receive(self, data: bytes) -> None:
        """Keep a piece of the body, or discard it if the request is refused."""
        if self.answered is not None or not data:
            return
        before = self.received
        self.received = before + len(data)
        try:
            if self.received > self._limit:
                self._refuse_size()
            if self.received != self.length or before:
                self.count_unverified(len(data))  # not for a body in one piece, which is verified at once
        except Refused as error:
            self.cut_off(self.problem(error))
            return
        if before == 0:
            self.body = data
        else:
            if self._pieces is None:
                self._pieces = bytearray(self.body)
            self._pieces += data

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
        """Called when the sender is verified: stop counting the body as unverified."""
        self.site.unverified.release(self)

    def complete(self, body: bytes | None = None) -> None:
        """
        Serve the request. Called when its body is complete.

        :param body: the whole body if it arrived in one piece; its length was checked with the headers.
        """
        self._is_complete = True
        if self.answered is not None:
            self._done()
            return
        if body is not None:
            self.body, self.received = body, len(body)
        elif self._pieces is not None:
            self.body, self._pieces = bytes(self._pieces), None
        if self.unverified:
            self.site.unverified.complete(self)
        self._serving = True
        assert self.place is not None
        try:
            self.place.serve(self)
        except Exception:
            self.failed(Failure())

    def client_gone(self, reason: Failure) -> None:
        """Called when the connection is lost: call `Place.over`, unless the place must first finish its work."""
        self.channel = None
        web, self.web = self.web, None
        if web is not None:
            web.client_gone(reason)
        if not (self._serving and self.place is not None and self.place.outlives_client):
            self._over(None)

    def give_way(self) -> None:
        """Called when memory is needed and this body is the slowest: refuse the request."""
        self.cut_off(self.problem(BodyTimedOut("the body came too slowly, and others need its room", retry_after=1)))

    def cut_off(self, answer: Response) -> None:
        """Send a response before the body is complete, then close; the rest of the body is discarded."""
        channel = self.channel
        if channel is not None:
            channel.persistent = False
        self.answer(answer)
        if channel is not None:
            channel.end()

    # Called by places

    def query_options(self) -> dict[str, str]:
        """
        Return the parameters of the query by name; the values of a repeated name are joined by commas.

        :raises PayloadInvalid: there are too many parameters.
        """
        try:
            parsed = parse_qs(self.line.query_text, keep_blank_values=True, max_num_fields=32)
        except ValueError:
            raise PayloadInvalid("the query has more than 32 options") from None
        return {name: ",".join(values) for name, values in parsed.items()}

    def check_own(self) -> None:
        """Raise `OriginRefused` if a browser may have sent the request for a page of another site."""
        self.site.own_hosts.check(self.headers.get("host"), self.headers.get("origin"))

    def problem(self, error: BaseException) -> Response:
        """Return the response for an error: its problem document; a 401 has a challenge."""
        answer = problem_of(error)
        if isinstance(error, Refused | ClaimTaken):
            note_refusal(self, answer.status, str(error))
        if self.place is None:
            return answer
        challenge = self.place.challenge if answer.status == 401 else b""
        lines = challenge + self.place.refusal_lines(self, error)
        return replace(answer, headers=answer.headers + lines) if lines else answer

    def failed(self, failure: Failure) -> None:
        """Send 500 after an exception in our code, without detail for the client."""
        log.failure("answering {method} {path} failed", failure, method=self.method, path=self.path)
        assert failure.value is not None
        self.refuse(failure.value)

    def refuse(self, error: BaseException) -> None:
        """Send the problem document of an error."""
        self.answer(self.problem(error))

    def answer(self, answer: Response) -> None:
        """Send a response."""
        self.send(answer.status, answer.body, answer.content_type, answer.headers)

    def send(self, status: int, body: bytes, content_type: bytes = JSON, headers: bytes = b"") -> None:
        """
        Send the response in one write, and release the request. It is not an error if the client has disconnected.

        :param headers: further field lines, each ending in CRLF.
        """
        if self.answered is not None:
            return
        site, channel, place = self.site, self.channel, self.place
        now = site.clock.seconds()
        message = b""
        if channel is not None:
            if site.closes:
                channel.persistent = False
            length = None if channel.is_streaming else len(body)
            message = b"%b%b%b%b%b%b" % (
                _beginning(self.line.version, status, content_type, length),
                site.date_header(now),
                b"" if self.route is None else self.tree.header,
                headers,
                b"\r\n" if channel.persistent else b"Connection: close\r\n\r\n",
                b"" if status in _BODILESS or self.method == b"HEAD" else body,
            )
        self.answered = status  # not before: where a connector's answer is not of bytes, another one is sent
        endpoint = site.unknown_endpoint if place is None else place.endpoint(self)
        site.metrics.http_request(endpoint, self.line.method_text, status, now - self.began_at, self.received)
        if channel is not None:
            channel.write(message)
        self._over(status)
        if self._is_complete:
            self._done()

    # Internal

    def _answer_early(self, answer: Response) -> None:
        """
        Send a response before the body has arrived.

        A small body is read and discarded, and the connection persists. The connection is closed if the body is large
        or of unknown length, or if the client waits for ``100 Continue``: it may then not send the body at all.
        """
        length = self.length
        if length == 0 or (
            length is not None and length <= self.site.limits.skipped_body and "expect" not in self.headers
        ):
            self.answer(answer)
        else:
            self.cut_off(answer)

    def _check_origin(self, allowed: frozenset[bytes]) -> None:
        origin = self.headers.get("origin")
        if origin is not None and origin.encode("latin-1") not in allowed:
            raise OriginRefused(f"origin {origin!r} is not allowed")

    def _refuse_method(self, methods: tuple[bytes, ...]) -> None:
        allow = [method.decode("ascii") for method in methods]
        raise MethodNotAllowed(f"{self.method.decode('latin-1')} is not allowed here; use {', '.join(allow)}", allow)

    def _refuse_size(self) -> None:
        raise BodyTooLarge(f"the body is larger than {self._limit} bytes")

    def _done(self) -> None:
        """End a request that is complete and answered."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.request_done()
        if self.web is not None:
            web, self.web = self.web, None  # no cycle is left
            web.end()

    def _over(self, status: int | None) -> None:
        """Call `Place.over`, once."""
        if self._admitted:
            self._admitted = False
            site, place = self.site, self.place
            site.in_flight -= 1
            assert place is not None
            if self.unverified:
                self.verified()
            place.over(self, status)
            self.body, self._pieces = b"", None  # a connection that is being closed may take long
            if site.quiescing:
                site.check_quiet()
        # Klein's closures hold the request that they render in a cycle. If `gc.freeze` runs then, the cycle and the
        # routes of its tree would never be freed.
        self.tree = EMPTY
