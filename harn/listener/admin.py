"""
The admin API, a Klein app under ``/admin``: everything that an operator may ask of a running server.

Every request is authenticated first. What it asks for goes on when its client goes away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from harn.auth.authenticator import Authenticator, Identity
from harn.errors import PreconditionFailed, SignatureReplayed
from harn.listener.admin_arguments import (
    check_options,
    parse_body,
    parse_flag,
    parse_number,
    parse_seconds,
    parse_source,
)
from harn.listener.etags import is_named, quoted, wanted
from harn.listener.interfaces import IOperations
from harn.listener.klein_pages import answer_failure, make_app, methods_of, shielded
from harn.listener.place import Place
from harn.listener.problem import problem_of
from harn.listener.push import CHALLENGE
from harn.listener.request import JSON, HarnRequest
from harn.reload.interfaces import IReloader
from harn.reload.report import AUTHOR_STAGES, ReloadReport, ReloadRequest
from harn.store.interfaces import IInbox

_encode = msgspec.json.Encoder(enc_hook=str).encode
_MOST_RECORDS = 1000


def status_of_report(report: ReloadReport) -> int:
    """Give the status of a reload: what the author can mend is 422, what ran out of time 504, the rest 500."""
    if report.ok:
        return 200
    if report.timed_out:
        return 504
    return 422 if report.stage in AUTHOR_STAGES else 500


class Admin(Place):
    """
    The place of everything under ``/admin``.

    :param authenticator: gives the one of now: a reload makes a new one.
    :param inbox: where signatures that count once are claimed.
    """

    app = make_app()
    challenge = CHALLENGE

    def __init__(
        self,
        clock: IReactorTime,
        authenticator: Callable[[], Authenticator],
        inbox: IInbox,
        reloader: IReloader,
        operations: IOperations,
    ) -> None:
        self._clock = clock
        self._authenticator = authenticator
        self._inbox = inbox
        self._reloader = reloader
        self._operations = operations
        self.resource = self.app.resource()

    # The place

    def endpoint(self, request: HarnRequest) -> str:
        """The first two segments: names of triggers and events are no labels."""
        known = b"/".join(request.path.split(b"/")[:3])
        return known.decode("latin-1") if known in _ENDPOINTS else "/admin"

    def methods(self, request: HarnRequest) -> tuple[bytes, ...]:
        """What the app's rules say."""
        return methods_of(self.app, request)

    def body_limit(self, request: HarnRequest) -> int:
        """Enough for any command."""
        return request.site.limits.admin_body

    def admit(self, request: HarnRequest, length: int) -> None:
        """Turn away whom the headers alone give away, before a body is read."""
        self._authenticator().authenticate_headers(request.lower_headers(), request.began_at)

    def serve(self, request: HarnRequest) -> None:
        """Let ``twisted.web`` render the app."""
        request.process()  # type: ignore[no-untyped-call]  # twisted.web is not typed here

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # ours are HarnRequests
    def failed(self, request: HarnRequest, failure: Failure) -> None:
        """Answer with a problem document."""
        answer_failure(request, failure)

    # What all routes do

    async def _identify(self, request: HarnRequest) -> Identity:
        """
        Find out who asks, and use up a signature that counts once.

        :raises CredentialsRejected: or one of its classes.
        :raises EventLogUnavailable: the signature cannot be remembered.
        """
        identity: Identity = self._authenticator().authenticate(
            request.method.decode("latin-1"),
            request.uri.decode("latin-1"),
            request.lower_headers(),
            request.body,
            self._clock.seconds(),
        )
        guard = identity.guard
        if guard is not None and not await shielded(self._inbox.claim(guard.scope, guard.key, guard.expires_at)):
            raise SignatureReplayed("this signature was used before; sign each request anew")
        return identity

    async def _act(
        self,
        request: HarnRequest,
        action: Callable[[str, Mapping[str, Any]], Awaitable[Any]],
        members: tuple[str, ...] = (),
    ) -> None:
        """Authenticate, read the body, act, answer with what came of it."""
        identity = await self._identify(request)
        check_options(request.query_options())
        result = await shielded(action(identity.actor, parse_body(request.body, members)))
        _reply(request, 200, result)

    async def _show(self, request: HarnRequest, read: Callable[[], Awaitable[Any]], name: str | None = None) -> None:
        """Authenticate, answer with what is read, under ``name`` if it has one."""
        await self._identify(request)
        check_options(request.query_options())
        found = await shielded(read())
        _reply(request, 200, found if name is None else {name: found})

    # Reloading

    @app.route("/admin/reload", methods=["POST"])
    async def reload(self, request: HarnRequest) -> None:
        """Reload the manifest, or say what a reload would do."""
        identity = await self._identify(request)
        options = request.query_options()
        check_options(options, ("force", "dry_run"))
        body = parse_body(request.body, ("source",))
        etag = self._reloader.etag
        asked = ReloadRequest(
            source=parse_source(body.get("source")),
            actor=identity.actor,
            force=parse_flag(options, "force"),
            dry_run=parse_flag(options, "dry_run"),
            if_match=wanted(request.getHeader("If-Match"), etag),
        )
        try:
            report = await shielded(self._reloader.reload(asked))
        except PreconditionFailed as error:
            live = quoted(self._reloader.etag)
            tags = {"if_match": quoted(asked.if_match or ""), "etag": live}
            answer = problem_of(error, extra=tags)
            request.send(answer.status, answer.body, answer.content_type, _etag_line(live))
            return
        _reply(request, status_of_report(report), report.to_dict(), _etag_line(self._reloader.etag))

    @app.route("/admin/generation", methods=["GET"])
    async def generation(self, request: HarnRequest) -> None:
        """Show the live generation, unless the caller knows it."""
        await self._identify(request)
        check_options(request.query_options())
        etag = _etag_line(self._reloader.etag)
        if is_named(request.getHeader("If-None-Match"), self._reloader.etag):
            request.send(304, b"", headers=etag)
            return
        _reply(request, 200, await shielded(self._reloader.describe()), etag)

    # Reading

    @app.route("/admin/generations", methods=["GET"])
    async def generations(self, request: HarnRequest) -> None:
        """Show the generations that served."""
        await self._show(request, lambda: self._operations.generations(20), "generations")

    @app.route("/admin/bindings", methods=["GET"])
    async def bindings(self, request: HarnRequest) -> None:
        """Show every live or draining version."""
        await self._show(request, self._operations.bindings, "bindings")

    @app.route("/admin/inspect", methods=["GET"])
    async def inspect(self, request: HarnRequest) -> None:
        """Show the whole state."""
        await self._show(request, self._operations.inspect)

    @app.route("/admin/events/<topic>", methods=["GET"])
    async def events(self, request: HarnRequest, topic: str) -> None:
        """Show records of a topic."""
        await self._identify(request)
        options = request.query_options()
        check_options(options, ("after", "limit"))
        after, limit = parse_number(options, "after", 0, 0), parse_number(options, "limit", 100, 1, _MOST_RECORDS)
        page = await shielded(self._operations.events(topic, after, limit))
        records = [
            {
                "number": record.number,
                "kind": record.kind,
                "payload": record.payload,
                "headers": record.headers,
                "occurred_at": record.occurred_at,
            }
            for record in page.records
        ]
        _reply(request, 200, {"topic": page.topic, "records": records, "latest": page.latest})

    # Acting

    @app.route("/admin/fire/<trigger>", methods=["POST"])
    async def fire(self, request: HarnRequest, trigger: str) -> None:
        """Make up an event."""
        operations = self._operations
        await self._act(request, lambda actor, body: operations.fire(trigger, body.get("payload"), actor), ("payload",))

    @app.route("/admin/recover", methods=["POST"])
    async def recover(self, request: HarnRequest) -> None:
        """Go on with stranded deliveries, or list them."""

        def recover(actor: str, body: Mapping[str, Any]) -> Awaitable[Any]:
            return self._operations.recover(parse_seconds(body, "envelope_age"), parse_flag(body, "dry_run"), actor)

        await self._act(request, recover, ("envelope_age", "dry_run"))


_ENDPOINTS = frozenset("/".join(rule.rule.split("/")[:3]).encode("ascii") for rule in Admin.app.url_map.iter_rules())


def _reply(request: HarnRequest, status: int, document: Any, headers: bytes = b"") -> None:
    request.send(status, _encode(document), JSON, headers)


def _etag_line(etag: str) -> bytes:
    return b"ETag: " + quoted(etag).encode("latin-1", "replace") + b"\r\n"
