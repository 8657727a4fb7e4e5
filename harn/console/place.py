"""The place of the console in the listener's site, and its Klein app: from a path to its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harn.console.answers import GUARDED
from harn.console.sign_in import ROOT
from harn.listener.place import KleinPlace
from harn.listener.request import HarnRequest
from harn.listener.web import render

if TYPE_CHECKING:
    from klein import Klein

    from harn.console.now import NowPage
    from harn.console.reception import Reception
    from harn.console.triggers import TriggerPages

SMALL_BODY = 8192
"""Bytes of the largest form of a user who has not signed in: a key."""


class Console(KleinPlace):
    """The place of ``/console`` and every path under it."""

    is_own = True
    checks_origin = True

    def __init__(self, reception: Reception, now: NowPage, triggers: TriggerPages) -> None:
        self._reception = reception
        self._now = now
        self._triggers = triggers

    def make_app(self) -> Klein:
        """See `KleinPlace.make_app`."""
        from harn.console.app import Parts, make_console_app

        return make_console_app(self._reception, Parts(now=self._now, triggers=self._triggers))

    def endpoint(self, request: HarnRequest) -> str:
        """Return one name for all pages: their paths hold ids."""
        return ROOT

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """
        Return the methods of the path's routes. Any plain path has a page, if only one that says that it is unknown.

        :raises RouteUnknown: the path is not plain: it has empty segments, for example.
        """
        from harn.listener.klein_pages import methods_of

        return methods_of(self.app, request)

    def body_limit(self, request: HarnRequest) -> int:
        """Return the size of the largest form: that of a fixture, or of a key while the user has not signed in."""
        is_known = self._reception.door.session_of(request) is not None
        return request.site.limits.admin_body if is_known else SMALL_BODY

    def admit(self, request: HarnRequest, length: int) -> None:
        """
        Check the host that a browser names.

        :raises OriginRefused: it is not one of this server's: another site's name leads here.
        """
        request.site.own_hosts.check_host(request.headers.get("host"))

    def refusal_lines(self, request: HarnRequest, error: BaseException) -> bytes:
        """Return the headers that every answer of the console has."""
        return GUARDED

    def serve(self, request: HarnRequest) -> None:
        """Render the page of Klein."""
        render(request)
