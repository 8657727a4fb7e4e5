"""Places and trees: the handlers of requests at a path, and the routes of one generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import unquote

from attrs import evolve, field, frozen

from harn.triggers.routing import Route

if TYPE_CHECKING:
    from klein import Klein
    from twisted.web.resource import IResource

    from harn.listener.request import HarnRequest

READ_METHODS = (b"GET", b"HEAD", b"OPTIONS")
POST_METHODS = (b"OPTIONS", b"POST")


class Place:
    """
    The handler of a request, called in this order: `endpoint`, `methods`, `body_limit` and `admit` when its headers are
    in, `serve` when its body is complete, `over` once at the end if `admit` accepted it.

    :ivar challenge: the ``WWW-Authenticate`` line of its 401.
    :ivar answers_always: it answers also on a connection above the limit.
    :ivar is_own: it is for operators and their programs: where these have a listener of their own, it is there alone.
    :ivar outlives_client: `over` waits for the answer even if the client has disconnected.
    :ivar checks_origin: it checks ``Origin`` itself, by a stricter rule than ``allowed_origins``.
    """

    challenge = b""
    answers_always = False
    is_own = False
    outlives_client = False
    checks_origin = False

    def endpoint(self, request: HarnRequest) -> str:
        """Return the path's name in the metrics; never a path chosen by the sender."""
        raise NotImplementedError

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Return the methods of the path, sorted.

        :raises RouteUnknown: there is no such path.
        """
        raise NotImplementedError

    def body_limit(self, request: HarnRequest) -> int:
        """Return the size of the largest body (bytes)."""
        return 0

    def admit(self, request: HarnRequest, length: int) -> None:
        """
        Accept the request, now that its headers are in.

        :param length: bytes of the body, 0 if unknown.
        :raises Refused: the request is refused; its body is not read.
        """

    def refusal_lines(self, request: HarnRequest, error: BaseException) -> bytes:
        """Return further header lines of the answer to an error; each ends in CRLF."""
        return b""

    def serve(self, request: HarnRequest) -> None:
        """Answer, now or later, with ``request.send``."""
        raise NotImplementedError

    def over(self, request: HarnRequest, status: int | None) -> None:
        """
        Release the request's resources.

        :param status: the status of its answer, None if its client disconnected before.
        """


class KleinPlace(Place):
    """
    A place whose `serve` leaves the answer to a Klein app.

    Klein is imported, and the app made, when the first request comes or `load` is called: a start does not wait for it.
    """

    _app: Klein | None = None
    _making = Lock()

    @property
    def app(self) -> Klein:
        """The Klein app, made when it is first used."""
        if self._app is None:
            with self._making:
                if self._app is None:
                    self._app = self.make_app()
        return self._app

    def load(self) -> None:
        """Make the app now. For a thread."""
        self.app  # noqa: B018

    def make_app(self) -> Klein:
        """Make the Klein app."""
        raise NotImplementedError


@frozen
class Tree:
    """
    The routes of one generation and what answers them. Made whole, never changed.

    :ivar routes: by path.
    :ivar places: the places whose Klein apps answer; other places answer without ``twisted.web``.
    :ivar header: the ``Harn-Generation`` line of its answers.
    :ivar rest: what a request that has found its route keeps of it: all but the routes, which may be thousands, and
        which the last request of a generation must not free all at once. None before it is numbered.
    """

    generation: int
    routes: Mapping[str, Route] = field(repr=False)
    header: bytes = b""
    places: frozenset[KleinPlace] = field(default=frozenset(), repr=False)
    rest: Tree | None = field(default=None, repr=False)

    @classmethod
    def of(cls, generation: int, routes: Mapping[str, Route]) -> Tree:
        """Make the tree of a generation, without any app."""
        return cls(generation, routes, b"Harn-Generation: %d\r\n" % generation)

    def with_apps(self, places: Iterable[Place]) -> Tree:
        """Return a tree of the same routes in which the apps of these places answer."""
        found = frozenset(each for each in places if isinstance(each, KleinPlace))
        return evolve(self, places=found, rest=None if self.rest is None else evolve(self.rest, places=found))

    def resource(self, place: Place | None) -> IResource | None:
        """Return the resource of a place whose Klein app answers in this tree; None for any other place."""
        if place not in self.places or not isinstance(place, KleinPlace):
            return None
        resource: IResource = place.app.resource()
        return resource

    def numbered(self, generation: int) -> Tree:
        """Return the same tree for a generation of this number."""
        rest = Tree(generation, {}, b"Harn-Generation: %d\r\n" % generation, self.places)
        return evolve(rest, routes=self.routes, rest=rest)

    def find(self, path: str) -> Route | None:
        """Find the route of a path as written in a request, percent-encoded or not."""
        route = self.routes.get(path)
        if route is None and "%" in path:
            route = self.routes.get(unquote(path))
        return route


EMPTY = Tree.of(0, {})
