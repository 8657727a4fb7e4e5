"""The admin pages that reload, plan a reload, and roll back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.errors import PreconditionFailed
from harn.listener.admin_arguments import (
    ROLLBACK_SOURCE,
    check_options,
    parse_body,
    parse_flag,
    parse_generation,
    parse_source,
)
from harn.listener.admin_place import AdminPlace, Door, etag_line, make_admin_app, reply
from harn.listener.admin_wishes import WISHES, parse_wishes
from harn.listener.etags import quoted, wanted
from harn.listener.klein_pages import shielded
from harn.listener.problems import problem_of
from harn.listener.request import HarnRequest
from harn.reload.interfaces import IReloader
from harn.reload.report import (
    AUTHOR_STAGES,
    NEEDS_CONFIRMATION,
    PREVIOUS,
    UNSETTLED,
    ReloadReport,
    ReloadRequest,
)


def status_of_report(report: ReloadReport) -> int:
    """
    Give the status of a reload.

    What the author can mend is 422, what was held back 409, what ran out of time 504, the rest 500.
    """
    if report.ok:
        return 200
    if report.status in (NEEDS_CONFIRMATION, UNSETTLED):
        return 409
    if report.timed_out:
        return 504
    return 422 if report.stage in AUTHOR_STAGES else 500


class ReloadPages(AdminPlace):
    """What an operator may have a server adopt."""

    app = make_admin_app()

    def __init__(self, door: Door, reloader: IReloader) -> None:
        super().__init__(door)
        self._reloader = reloader

    @app.route("/admin/reload", methods=["POST"])
    async def reload(self, request: HarnRequest) -> None:
        """Reload the manifest, or say what a reload would do."""
        await self._adopt(request, ("force", "dry_run", *WISHES), ("source",))

    @app.route("/admin/plan", methods=["POST"])
    async def plan(self, request: HarnRequest) -> None:
        """Say what a reload would do."""
        await self._adopt(request, ("force", *WISHES), ("source",), dry_run=True)

    @app.route("/admin/rollback", methods=["POST"])
    async def rollback(self, request: HarnRequest) -> None:
        """Adopt the content of an earlier generation, or say what that would do."""
        await self._adopt(request, ("force", "dry_run"), ("generation", "source"), recalls=True)

    @app.route("/admin/generation", methods=["GET"])
    async def generation(self, request: HarnRequest) -> None:
        """
        Show the live generation, whatever the caller knows: most of the document changes while the tag stays.

        The tag is for ``If-Match``, and names the generation alone.
        """
        await self.identify(request)
        check_options(request.query_options())
        etag = etag_line(self._reloader.etag)
        reply(request, 200, await shielded(self._reloader.describe()), etag)

    async def _adopt(
        self,
        request: HarnRequest,
        options: tuple[str, ...],
        members: tuple[str, ...],
        *,
        dry_run: bool = False,
        recalls: bool = False,
    ) -> None:
        """
        Authenticate, ask for what the request says, answer with the report.

        :param options: those of the query that the page knows; ``members``: those of the body.
        :param dry_run: whether the page never changes anything; ``recalls``: whether it is about an earlier generation.
        """
        identity = await self.identify(request)
        given = request.query_options()
        check_options(given, options)
        body = parse_body(request.body, members)
        asked = self._request_of(given, body, request.getHeader("If-Match"), identity.actor, dry_run, recalls)
        try:
            report = await shielded(self._reloader.reload(asked))
        except PreconditionFailed as error:
            live = quoted(self._reloader.etag)
            tags = {"if_match": quoted(asked.if_match or ""), "etag": live}
            answer = problem_of(error, extra=tags)
            request.send(answer.status, answer.body, answer.content_type, etag_line(live))
            return
        reply(request, status_of_report(report), report.to_dict(), etag_line(self._reloader.etag))

    def _request_of(
        self,
        options: Mapping[str, str],
        body: Mapping[str, Any],
        if_match: str | None,
        actor: str,
        dry_run: bool,
        recalls: bool,
    ) -> ReloadRequest:
        """
        Put together what was asked for.

        :raises PayloadInvalid: some of it cannot be meant.
        """
        is_dry = dry_run or parse_flag(options, "dry_run")
        common: dict[str, Any] = {
            "actor": actor,
            "force": parse_flag(options, "force"),
            "dry_run": is_dry,
            "if_match": wanted(if_match, self._reloader.etag),
        }
        if recalls:
            number = parse_generation(body, "generation")
            source = parse_source(body.get("source"), ROLLBACK_SOURCE)
            return ReloadRequest(source=source, recall=PREVIOUS if number is None else number, **common)
        return ReloadRequest(source=parse_source(body.get("source")), **common, **parse_wishes(options, is_dry))
