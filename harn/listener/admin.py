"""
The admin API, everything under ``/admin``: what an operator may ask of a running server.

Whose headers show no credentials is told nothing else, not even whether there is such a page. A signature covers the
body, too, and is checked when that is there. What a request asks for goes on when its client goes away.
"""

from __future__ import annotations

from collections.abc import Callable

from harn.auth.authenticator import Authenticator
from harn.clocks import WallTime
from harn.listener.admin_generations import GenerationPages
from harn.listener.admin_operations import OperationPages
from harn.listener.admin_place import EVERYTHING, AdminPlace, Door
from harn.listener.admin_reload import ReloadPages
from harn.listener.admin_routes import AdminRoutes
from harn.listener.interfaces import IOperations, IReloadOperations
from harn.listener.place import Place
from harn.listener.push import CHALLENGE
from harn.listener.request import HarnRequest, unknown_path
from harn.observability.audit import Audit
from harn.reload.interfaces import IReloader
from harn.store.inbox import IInbox


class Admin(Place):
    """
    The place of everything under ``/admin``: it hands each request to the one of its places that knows the path.

    :param authenticator: gives the one of now: a reload makes a new one.
    :param inbox: where signatures that count once are claimed.
    :param audit: records what they had the server do.
    :param reload_operations: None where nothing answers for generations; their pages are unknown then.
    """

    challenge = CHALLENGE

    def __init__(
        self,
        wall: WallTime,
        authenticator: Callable[[], Authenticator],
        inbox: IInbox,
        audit: Audit,
        reloader: IReloader,
        operations: IOperations,
        reload_operations: IReloadOperations | None = None,
        routes: AdminRoutes | None = None,
    ) -> None:
        door = Door(wall=wall, authenticator=authenticator, inbox=inbox, audit=audit)
        self._door = door
        places: list[AdminPlace | AdminRoutes] = [] if routes is None else [routes]
        places += [OperationPages(door, operations), ReloadPages(door, reloader)]
        if reload_operations is not None:
            places.append(GenerationPages(door, reloader, reload_operations))
        self._places = tuple(places)

    def endpoint(self, request: HarnRequest) -> str:
        """One name for all paths that nobody knows."""
        return EVERYTHING

    def place_for(self, request: HarnRequest) -> Place:
        """Hand the request over; one that none of the places knows stays here, to be answered 404."""
        return next((place for place in self._places if place.knows(request)), self)

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Know no path.

        :raises CredentialsRejected: the headers show none.
        :raises RouteUnknown: in every other case.
        """
        self._door.check_headers(request)
        raise unknown_path(request)
