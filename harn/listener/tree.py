"""The site's route table: the routes of one generation, by path."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from attrs import field, frozen

from harn.triggers.route import Route


@frozen
class Tree:
    """
    The routes of one generation. Made whole, never changed.

    :ivar routes: by path.
    :ivar header: the ``Harn-Generation`` line of its answers.
    """

    generation: int
    routes: Mapping[str, Route] = field(repr=False)
    header: bytes = b""

    @classmethod
    def of(cls, generation: int, routes: Mapping[str, Route]) -> Tree:
        """Make the table of a generation."""
        return cls(generation, routes, b"Harn-Generation: %d\r\n" % generation)

    def find(self, path: bytes) -> Route | None:
        """Find the route of a path as written in a request, percent-encoded or not."""
        route = self.routes.get(path.decode("utf-8", "replace"))
        if route is None and b"%" in path:
            route = self.routes.get(unquote(path))
        return route


EMPTY = Tree.of(0, {})
