"""What the site serves at one moment: the routes of one generation, by path."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from attrs import field, frozen

from harn.triggers.route import Route


@frozen
class Tree:
    """
    The routes of one generation. Made whole, never changed.

    :ivar routes: by path, as UTF-8 bytes.
    :ivar header: the ``Harn-Generation`` line of its answers.
    """

    generation: int
    routes: Mapping[bytes, Route] = field(repr=False)
    header: bytes = b""

    @classmethod
    def of(cls, generation: int, routes: Mapping[bytes, Route]) -> Tree:
        """Number a table of routes."""
        return cls(generation, routes, b"Harn-Generation: %d\r\n" % generation)

    def find(self, path: bytes) -> Route | None:
        """Find the route of a path as it stands in a request, percent-encoded or not."""
        route = self.routes.get(path)
        if route is None and b"%" in path:
            route = self.routes.get(unquote_to_bytes(path))
        return route


EMPTY = Tree.of(0, {})


def index_routes(routes: Mapping[str, Route]) -> Mapping[bytes, Route]:
    """Index routes by the bytes of their paths: a millisecond for ten thousand, so nothing is carried over."""
    return {path.encode("utf-8"): route for path, route in routes.items()}
