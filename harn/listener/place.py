"""A place: what answers at one path, or at all paths of one kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.web.resource import IResource

    from harn.listener.request import HarnRequest

READ_METHODS = (b"GET", b"HEAD", b"OPTIONS")
POST_METHODS = (b"OPTIONS", b"POST")


class Place:
    """
    What a request meets, in this order: `endpoint`, `methods`, `body_limit` and `admit` when its headers are in,
    `serve` when its body is complete, `over` once at the end if `admit` let it in.

    :ivar resource: what renders it, where `serve` hands it to ``twisted.web``.
    :ivar challenge: the ``WWW-Authenticate`` line that goes with its 401.
    :ivar answers_always: it answers also on a connection for which there is no room.
    :ivar outlives_client: `over` waits for the answer even when nobody is there any more to read it.
    """

    resource: IResource | None = None
    challenge = b""
    answers_always = False
    outlives_client = False

    def place_for(self, request: HarnRequest) -> Place:
        """Give the place that answers: this one, or one of those that it is made of."""
        return self

    def endpoint(self, request: HarnRequest) -> str:
        """The path's name in the metrics; never what a stranger sent."""
        raise NotImplementedError

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Methods that the path knows, sorted.

        :raises RouteUnknown: there is no such path.
        """
        raise NotImplementedError

    def body_limit(self, request: HarnRequest) -> int:
        """The largest body (bytes)."""
        return 0

    def admit(self, request: HarnRequest, length: int) -> None:
        """
        Let the request in, now that its headers are there.

        :param length: bytes that the body will have, 0 if unknown.
        :raises Refused: it is turned away; its body is not read.
        """

    def serve(self, request: HarnRequest) -> None:
        """Answer, now or later, with ``request.send``."""
        raise NotImplementedError

    def over(self, request: HarnRequest, status: int | None) -> None:
        """
        Let go of the request.

        :param status: what it was answered with, None if its client went away before.
        """
