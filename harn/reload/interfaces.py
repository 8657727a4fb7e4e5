"""What the layers above reloading provide to it, and may ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from harn.reload.report import ReloadReport, ReloadRequest
from harn.triggers.route import Route


class IRouteTable(Interface):
    """Where requests find their route; provided by the listener's site."""

    def build(routes: Mapping[str, Route]) -> Any:
        """
        Build a tree of these routes, by path, off to the side.

        :raises StageFailed: stage ``swap``: it cannot be built.
        """

    def swap(tree: Any, generation: int) -> None:
        """Serve ``tree`` from now on. Cannot fail."""


class IReloader(Interface):
    """Reloads, and knows what is live."""

    generation: int = Attribute("The number of the live generation; 0 before the first.")
    etag: str = Attribute("Made of the live generation's number and digest.")

    def reload(request: ReloadRequest) -> Deferred[ReloadReport]:
        """
        Reload; a failure is a report, too.

        :raises PreconditionFailed: ``if_match`` names another generation than the live one.
        :raises ShuttingDown: the server is going down.
        """

    def describe() -> Deferred[dict[str, Any]]:
        """The shape of ``GET /admin/generation``; reads the files to tell ``drift``."""
