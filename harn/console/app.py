"""The routes of the console: from a path to its page or action."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from klein import Klein
from msgspec import Struct
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.console import dead_letters, deliveries, now, reloads, servers, triggers
from harn.console.answers import see_other
from harn.console.desk import OUTCOME, PART, STREAM, Desk, Page, Visit
from harn.console.forms import read_checked_form, read_query
from harn.console.live import LivePage, Pace
from harn.console.reception import LOGIN, Reception
from harn.console.sign_in import ROOT
from harn.errors import EventLogUnavailable, Refused, RouteUnknown
from harn.listener.admin_auth import shielded
from harn.listener.klein_pages import make_app
from harn.listener.problems import Response
from harn.listener.web import WebRequest

log = Logger(namespace="harn.console")


class Parts(Struct, frozen=True, kw_only=True):
    """The pages that keep something between requests."""

    now: now.NowPage
    triggers: triggers.TriggerPages


async def show_unknown(desk: Desk, visit: Visit, path: str) -> Response:
    """
    Answer for every path that has no page.

    :raises RouteUnknown: always.
    """
    raise RouteUnknown(f"the console has no page {path!r}")


def pages(parts: Parts) -> dict[str, Page]:
    """Return the pages, by path."""
    return {
        "/": parts.now.show,
        "/triggers": parts.triggers.show_list,
        "/triggers/<trigger_id>": parts.triggers.show_one,
        "/deliveries": deliveries.show_list,
        "/deliveries/<event_id>": deliveries.show_one,
        "/deliveries/<event_id>/fixture.json": deliveries.export,
        "/dead-letters": dead_letters.show_groups,
        "/dead-letters/change": dead_letters.show_change,
        "/reloads": reloads.show_list,
        "/reloads/<generation>": reloads.show_diff,
        "/servers": servers.show_list,
        "/<path:path>": show_unknown,
    }


LIVE = {
    "/": Pace(often=1.0, seldom=5.0),
    "/triggers": Pace(often=2.0, seldom=10.0),
    "/triggers/<trigger_id>": Pace(often=1.0, seldom=5.0),
    "/deliveries": Pace(often=2.0, seldom=10.0),
    "/deliveries/<event_id>": Pace(often=1.0, seldom=2.0),
    "/dead-letters": Pace(often=1.0, seldom=5.0),
    "/reloads": Pace(often=1.0, seldom=15.0, shows_deliveries=False),
    "/servers": Pace(often=1.0, seldom=2.0, shows_deliveries=False),
}
"""The pages that may be streamed, by path."""

ACTIONS: dict[str, Page] = {
    "/pause": now.pause,
    "/resume": now.resume,
    "/circuits/close": now.close,
    "/drains/move": now.move,
    "/drains/cancel": now.cancel,
    "/triggers/<trigger_id>/pause": triggers.pause,
    "/triggers/<trigger_id>/resume": triggers.resume,
    "/triggers/<trigger_id>/fire": triggers.fire_one,
    "/deliveries/<event_id>/replay": deliveries.replay,
    "/deliveries/<event_id>/cancel": deliveries.cancel,
    "/deliveries/<event_id>/discard": deliveries.discard,
    "/dead-letters/change": dead_letters.change,
    "/jobs/<job>/pause": dead_letters.pause_job,
    "/jobs/<job>/resume": dead_letters.resume_job,
    "/jobs/<job>/cancel": dead_letters.cancel_job,
    "/reloads/plan": reloads.show_plan,
    "/reloads/reload": reloads.act_reload,
    "/reloads/rollback": reloads.act_rollback,
    "/reloads/confirm": reloads.act_confirm,
    "/ramps/finish": reloads.finish_ramp,
    "/ramps/abort": reloads.abort_ramp,
}
"""What forms do, by path."""


def make_console_app(reception: Reception, parts: Parts) -> Klein:
    """Make the Klein app of the console."""
    app = make_app()
    _add_errors(app, reception)
    _add_sign_in(app, reception)
    for path, shows in pages(parts).items():
        _add_page(app, reception, path, shows)
    for path, acts in ACTIONS.items():
        _add_action(app, reception, path, acts)
    return app


def _add_page(app: Klein, reception: Reception, path: str, shows: Page) -> None:
    @app.route(ROOT + path, methods=["GET"], endpoint=f"GET {path}")
    async def get(web: WebRequest, **in_path: Any) -> None:
        request = web.request
        session = reception.door.session_of(request)
        if session is None:
            request.answer(reception.to_login(request))
            return
        query = read_query(request)
        if STREAM in query and request.method == b"GET":
            reception.live.open(request, _live_page(path, shows, in_path, query), session)
            return
        request.answer(await shows(reception.desk, Visit(session=session, query=query), **in_path))


def _live_page(path: str, shows: Page, in_path: dict[str, Any], query: dict[str, str]) -> LivePage:
    """
    Return a page whose stream is requested.

    :raises RouteUnknown: it has none.
    """
    pace = LIVE.get(path)
    if pace is None:
        raise RouteUnknown(f"the page {path} has no stream")
    kept = {name: value for name, value in sorted(query.items()) if name not in (STREAM, PART, OUTCOME)}
    target = urlencode([*in_path.items(), *kept.items()])
    return LivePage(page=shows, in_path=in_path, target=f"{path}?{target}", query=kept, pace=pace)


def _add_action(app: Klein, reception: Reception, path: str, acts: Page) -> None:
    @app.route(ROOT + path, methods=["POST"], endpoint=f"POST {path}")
    async def post(web: WebRequest, **in_path: Any) -> None:
        request = web.request
        session = reception.door.session_of(request)
        if session is None:
            request.answer(reception.to_login(request))
            return
        visit = Visit(session=session, form=read_checked_form(request, session))
        request.answer(await shielded(acts(reception.desk, visit, **in_path)))


def _add_sign_in(app: Klein, reception: Reception) -> None:
    @app.route(ROOT, methods=["GET"])
    def root(web: WebRequest) -> None:
        web.request.answer(see_other(f"{ROOT}/"))

    @app.route(LOGIN, methods=["GET"])
    async def login_page(web: WebRequest) -> None:
        web.request.answer(await reception.login_page(web.request))

    @app.route(LOGIN, methods=["POST"])
    async def log_in(web: WebRequest) -> None:
        web.request.answer(await reception.log_in(web.request))

    @app.route(f"{ROOT}/logout", methods=["POST"])
    async def log_out(web: WebRequest) -> None:
        request = web.request
        session = reception.door.session_of(request)
        if session is None:
            request.answer(reception.to_login(request))
            return
        read_checked_form(request, session)
        request.answer(await reception.log_out(request, session))

    @app.route(f"{ROOT}/assets/<digest>/<name>", methods=["GET"])
    def asset(web: WebRequest, digest: str, name: str) -> None:
        web.request.answer(reception.assets.answer(name))


def _add_errors(app: Klein, reception: Reception) -> None:
    @app.handle_errors(Exception)  # type: ignore[arg-type]  # these requests are WebRequests
    async def failed(web: WebRequest, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        error = failure.value
        assert error is not None
        request = web.request
        if not isinstance(error, Refused | EventLogUnavailable):
            log.failure("{method} {path} failed", failure, method=request.method, path=request.path)
        try:
            request.answer(await reception.problem(request, error))
        except Exception:
            log.failure("drawing the page of an error failed")
            request.refuse(error)
