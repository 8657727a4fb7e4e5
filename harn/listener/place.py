"""Places and trees: what answers the requests of a path, and the routes of one generation."""

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
    The resource of one or more paths.

    Its methods are called in this order: `endpoint`, `methods`, `body_limit` and `admit` when the headers of a request
    are complete, `serve` when its body is complete, `over` once at the end if `admit` accepted it.

    :ivar challenge: the ``WWW-Authenticate`` field line of a 401 response.
    :ivar answers_always: whether requests on a connection above the limit are answered, too.
    :ivar is_own: whether it is one of the server's own pages, for operators and their programs. If these have a
        listener of their own, it is served there alone.
    :ivar outlives_client: whether `over` is called only after the response, even if the client has disconnected.
    :ivar checks_origin: whether it checks ``Origin`` itself, by a stricter rule than ``allowed_origins``.
    """

    challenge = b""
    answers_always = False
    is_own = False
    outlives_client = False
    checks_origin = False

    def endpoint(self, request: HarnRequest) -> str:
        """Return the name of the path for the metrics, which never contains text that the sender chose."""
        raise NotImplementedError

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Return the allowed methods of the path, sorted.

        :raises RouteUnknown: there is no such path.
        """
        raise NotImplementedError

    def body_limit(self, request: HarnRequest) -> int:
        """Return the largest accepted size of a body (bytes)."""
        return 0

    def admit(self, request: HarnRequest, length: int) -> None:
        """
        Accept or refuse the request. Called when its headers are complete.

        :param length: the length of the body in bytes; 0 if unknown.
        :raises Refused: the request is refused; its body is not read.
        """

    def refusal_lines(self, request: HarnRequest, error: BaseException) -> bytes:
        """Return further field lines for the response to an error; each ends in CRLF."""
        return b""

    def serve(self, request: HarnRequest) -> None:
        """Send the response, now or later, by ``request.send``."""
        raise NotImplementedError

    def over(self, request: HarnRequest, status: int | None) -> None:
        """
        Release the request's resources.

        :param status: the status code of the response; None if the client disconnected before.
        """


class KleinPlace(Place):
    """
    A place whose requests a Klein app answers.

    Klein is imported, and the app made, at the first request or when `load` is called, so a start does not wait for it.
    """

    _app: Klein | None = None
    _making = Lock()

    @property
    def app(self) -> Klein:
        """Return the Klein app, which is made at the first use."""
        if self._app is None:
            with self._making:
                if self._app is None:
                    self._app = self.make_app()
        return self._app

    def load(self) -> None:
        """Make the app now. Called in a thread."""
        self.app  # noqa: B018

    def make_app(self) -> Klein:
        """Make the Klein app."""
        raise NotImplementedError


@frozen
class Tree:
    """
    The routes of one generation, and the Klein apps that are in use. It is never changed.

    :ivar generation: the number of the generation.
    :ivar routes: the routes by path.
    :ivar header: the ``Harn-Generation`` field line of its responses.
    :ivar places: the places whose Klein apps answer; other places answer without ``twisted.web``.
    :ivar rest: the same tree without routes; None before `numbered`. A request that has found its route refers to this
        tree, so that the end of the last request of a generation does not free thousands of routes at once.
    """

    generation: int
    routes: Mapping[str, Route] = field(repr=False)
    header: bytes = b""
    places: frozenset[KleinPlace] = field(default=frozenset(), repr=False)
    rest: Tree | None = field(default=None, repr=False)

    @classmethod
    def of(cls, generation: int, routes: Mapping[str, Route]) -> Tree:
        """Return the tree of a generation, without Klein apps."""
        return cls(generation, routes, b"Harn-Generation: %d\r\n" % generation)

    def with_apps(self, places: Iterable[Place]) -> Tree:
        """Return a tree with the same routes in which the Klein apps of these places answer."""
        found = frozenset(each for each in places if isinstance(each, KleinPlace))
        return evolve(self, places=found, rest=None if self.rest is None else evolve(self.rest, places=found))

    def resource(self, place: Place | None) -> IResource | None:
        """Return the resource of a place whose Klein app answers in this tree; None for any other place."""
        if place not in self.places or not isinstance(place, KleinPlace):
            return None
        resource: IResource = place.app.resource()
        return resource

    def numbered(self, generation: int) -> Tree:
        """Return a tree with the same routes for the generation with this number."""
        rest = Tree(generation, {}, b"Harn-Generation: %d\r\n" % generation, self.places)
        return evolve(rest, routes=self.routes, rest=rest)

    def find(self, path: str) -> Route | None:
        """Return the route of a request's path, percent-encoded or not; None if there is none."""
        route = self.routes.get(path)
        if route is None and "%" in path:
            route = self.routes.get(unquote(path))
        return route


EMPTY = Tree.of(0, {})
