"""The door of the console: the form for a key, and the pages of errors."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from msgspec import Struct

import harn
from harn.console.answers import page, see_other, text
from harn.console.assets import Assets
from harn.console.desk import PART, STREAM, Desk, Visit, reason_of_failure
from harn.console.forms import read_form, read_query
from harn.console.live import Live
from harn.console.origins import check_origin
from harn.console.sessions import Session
from harn.console.sign_in import ROOT, Door
from harn.errors import CredentialsRejected, PayloadInvalid, RateExceeded, Refused
from harn.listener.problems import Response, reason_of, status_of
from harn.listener.refusals import note_refusal
from harn.listener.request import HarnRequest

LOGIN = f"{ROOT}/login"
AGAIN = "again"
"""The option of the sign-in page that came from a page of another site, and was requested a second time."""


class Reception(Struct, frozen=True, kw_only=True):
    """The parts that answer requests: who has signed in, what pages are made of, and those that are live."""

    door: Door
    desk: Desk
    assets: Assets
    live: Live

    # Signing in

    async def login_page(self, request: HarnRequest) -> Response:
        """
        Return the form for a key; a user who has signed in is sent on.

        A link from another site, such as an alert in a chat, comes without the cookie, which is ``SameSite=Strict``.
        So the page asks for itself once more: that request comes from this site, and with the cookie.
        """
        query = read_query(request)
        target = inside(query.get("next", ""))
        if self.door.session_of(request) is not None:
            return see_other(target)
        is_foreign = request.headers.get("sec-fetch-site") == "cross-site" and AGAIN not in query
        return await self._login_form(target, again=f"{LOGIN}?{AGAIN}=1&next={quote(target)}" if is_foreign else "")

    async def log_in(self, request: HarnRequest) -> Response:
        """Begin a session with the key of the form."""
        check_origin(request)
        form = read_form(request)
        target = inside(form.get("next", ""))
        try:
            cookie = await self.door.sign_in(request, form.get("key", ""))
        except (CredentialsRejected, RateExceeded) as error:
            status = status_of(type(error)).code
            note_refusal(request, status, str(error))
            wait = b"" if error.retry_after is None else b"Retry-After: %d\r\n" % error.retry_after
            return await self._login_form(target, why=str(error), status=status, headers=wait)
        return see_other(target, cookie)

    async def log_out(self, request: HarnRequest, session: Session) -> Response:
        """End the session."""
        return see_other(LOGIN, await self.door.sign_out(request, session))

    async def _login_form(
        self, target: str, *, again: str = "", why: str = "", status: int = 200, headers: bytes = b""
    ) -> Response:
        values = {
            "target": target,
            "again": again,
            "why": why,
            "has_keys": self.door.credentials.are_configured,
            "version": harn.__version__,
        }
        body = await self.desk.threads.call(self.desk.renderer.render, "login.html", values)
        return page(body, status, headers)

    # Errors

    async def problem(self, request: HarnRequest, error: BaseException) -> Response:
        """Return the page of an error; a part of a page gets a line of text."""
        status = status_of(type(error))
        if isinstance(error, Refused):
            note_refusal(request, status.code, str(error))
        said = reason_of_failure(error)
        session = self.door.session_of(request)
        if session is None or _is_part(request):
            return text(status.code, said, error.retry_after if isinstance(error, Refused) else None)
        return await self.desk.show(
            Visit(session=session), "problem.html", status=status.code, title=reason_of(status.code), said=said
        )

    def to_login(self, request: HarnRequest) -> Response:
        """Return the way to the form, for a user who has not signed in; a part of a page is refused."""
        if _is_part(request):
            return text(401, "sign in first")
        asked = request.uri.decode("latin-1") if request.method in (b"GET", b"HEAD") else f"{ROOT}/"
        return see_other(f"{LOGIN}?next={quote(inside(asked), safe='')}")


def inside(target: str) -> str:
    """Return a path of the console with its query: ``target``, if it is one, else the first page."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return f"{ROOT}/"
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith(f"{ROOT}/") and "\\" not in target
    if not is_ours or parts.path == LOGIN or not target.isascii() or not target.isprintable():
        return f"{ROOT}/"
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _is_part(request: HarnRequest) -> bool:
    """Return whether a script requests a part of a page; none of them sends a query that cannot be read."""
    try:
        return not {PART, STREAM}.isdisjoint(read_query(request))
    except PayloadInvalid:
        return False
