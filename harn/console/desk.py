"""The common part of all pages: the operations of the server, and answers to a user who has signed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, TypeVar
from urllib.parse import urlencode

from attrs import evolve, field, frozen
from msgspec import Struct

import harn
from harn.clocks import WallTime
from harn.console.answers import page, see_other
from harn.console.rendering import Renderer
from harn.console.sessions import Outcome, Session
from harn.console.sign_in import caller_of
from harn.errors import EventLogUnavailable, NotPermitted, Refused, RouteUnknown
from harn.listener.problems import Response
from harn.operations.model import Caller, Operation, Reply, Role
from harn.operations.parameters import Parameters
from harn.operations.registry import Operations
from harn.waiting import ReactorThreads

P = TypeVar("P", bound=Parameters)
R = TypeVar("R", bound=Struct)

OUTCOME = "outcome"
"""The option of the query that names the outcome of an action."""
PART, STREAM = "part", "stream"
"""The options of the query by which the script requests only what changes of a page: once, or as often as it does."""


@frozen(kw_only=True)
class Visit:
    """
    One request of a user who has signed in.

    :ivar query: the fields of the query.
    :ivar form: of a POST, whose token is checked already.
    """

    session: Session
    query: Mapping[str, str] = field(factory=dict)
    form: Mapping[str, str] = field(factory=dict, repr=False)

    @property
    def caller(self) -> Caller:
        """Return the caller of operations."""
        return caller_of(self.session)

    @property
    def is_part(self) -> bool:
        """Return whether the script requests a part of the page."""
        return PART in self.query

    @property
    def outcome(self) -> Outcome | None:
        """Return the outcome of the action that led to it, if there was one."""
        return self.session.outcome(self.query.get(OUTCOME, ""))

    @property
    def is_first_look(self) -> bool:
        """Return whether it shows the outcome of an action for the first time: what it shows must be up to date."""
        return self.session.sees_first(self.query.get(OUTCOME, ""))

    def may(self, role: str) -> bool:
        """Return whether the user may do what needs this role."""
        return self.caller.role.covers(Role(role))

    def number(self, name: str) -> int:
        """Return a whole number of the query, 0 where there is none."""
        text = self.query.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


class Desk(Struct, frozen=True, kw_only=True):
    """
    Runs operations for pages, and makes answers.

    :ivar operations: every operation of the server: the only way from a page into it.
    :ivar names_servers: whether the list of pages has the servers: where several may use the store.
    """

    operations: Operations
    renderer: Renderer
    wall: WallTime
    threads: ReactorThreads
    names_servers: bool = False

    async def reply(self, visit: Visit, operation: Operation[Any, P, R], wanted: P) -> Reply[R]:
        """
        Run an operation as the user of the session.

        :raises NotPermitted: the role of the key does not allow it.
        :raises Refused, EventLogUnavailable: as the operation does.
        """
        return await self.operations.run(operation, visit.caller, wanted)

    async def run(self, visit: Visit, operation: Operation[Any, P, R], wanted: P) -> R:
        """Return the result of an operation; see `reply`."""
        return (await self.reply(visit, operation, wanted)).result

    async def named(self, visit: Visit, name: str, **values: Any) -> Any:
        """
        Return the result of an operation of a room above this one, which is found by its name.

        :param values: its parameters.
        :raises RouteUnknown: the server has no such operation.
        """
        for each in self.operations:
            if each.name == name:
                return await self.run(visit, each, each.parameters(**values))
        raise RouteUnknown(f"this server has no operation {name}")

    async def show(self, visit: Visit, template: str, *, status: int = 200, **values: Any) -> Response:
        """Draw a page with what every page shows, off the reactor thread."""
        common = {
            "visit": visit,
            "user": visit.caller,
            "csrf": visit.session.csrf,
            "outcome": visit.outcome,
            "now": self.wall.seconds(),
            "version": harn.__version__,
            "names_servers": self.names_servers,
        }
        return page(await self.threads.call(self.renderer.render, template, {**common, **values}), status)

    def done(self, visit: Visit, location: str, outcome: Outcome) -> Response:
        """Send the browser to a page that shows the outcome of its action."""
        target, _, anchor = location.partition("#")
        name = urlencode({OUTCOME: visit.session.keep(evolve(outcome, at=self.wall.seconds()))})
        return see_other(f"{target}{'&' if '?' in target else '?'}{name}{'#' if anchor else ''}{anchor}")

    async def act(self, visit: Visit, location: str, operation: Operation[Any, P, R], wanted: P, said: str) -> Response:
        """
        Run an operation that changes something, and send the browser to a page with its outcome.

        :param said: one sentence about its success, with members of its result in braces.
        :raises NotPermitted: the role of the key does not allow it.
        """
        try:
            result = await self.run(visit, operation, wanted)
        except NotPermitted:
            raise
        except (Refused, EventLogUnavailable) as error:
            return self.done(visit, location, failed(error))
        return self.done(visit, location, Outcome(text=said.format(result), result=result))


Page = Callable[Concatenate[Desk, Visit, ...], Awaitable[Response]]
"""Answers a request of a user who has signed in; further arguments are those of the path."""


def reason_of_failure(error: BaseException) -> str:
    """Return the text of an error that may be shown; others stay in the log."""
    if isinstance(error, EventLogUnavailable):
        return "the event log cannot be reached; the server's log has the reason"
    return str(error) if isinstance(error, Refused) else "the server failed on this request; its log has the reason"


def failed(error: Exception) -> Outcome:
    """Return the outcome of an action that failed."""
    why = "the event log cannot be written to; nothing was changed" if _is_of_store(error) else str(error)
    return Outcome(text=why or type(error).__name__, is_bad=True)


def _is_of_store(error: Exception) -> bool:
    return isinstance(error, EventLogUnavailable)
