"""
Live pages: an open page has one stream, on which its part comes again when something has happened.

A part is drawn once for all who look at it with the same role, and no more often than its pace and its cost allow. What
happens is only counted, and for pages that are not open nothing is drawn. A stream ends with its session, and when the
server stops. Pieces are server-sent events (WHATWG HTML, 9.2): the part as HTML; ``stale`` with the reason why it
cannot be drawn; ``over`` when the page must be loaded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from secrets import token_urlsafe
from typing import Any

from attrs import define, field
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from harn.console.answers import GUARDED
from harn.console.desk import PART, Desk, Page, Visit, reason_of_failure
from harn.console.sessions import SIZE, Session
from harn.console.sign_in import Door
from harn.console.traffic import Traffic
from harn.errors import EventLogUnavailable, Refused, Saturated
from harn.lifecycle import (
    CircuitChanged,
    DeadLettered,
    DeadLettersEnded,
    InterpreterRestarted,
    Lifecycle,
    PauseChanged,
    Redriven,
    StoreChanged,
    VersionClosed,
    VersionEnded,
)
from harn.listener.problems import status_of
from harn.listener.request import HarnRequest
from harn.listener.stream import Stream, begin_stream
from harn.operations.model import Role
from harn.reload.interfaces import Adopted, PinEnded, ReloadEnded
from harn.rollout.model import ProbationEnded, RolloutRecorded

log = Logger(namespace="harn.console")

MOST_STREAMS = 32
"""Open streams of all users."""
MOST_OF_SESSION = 4
"""Open streams of one session: a browser opens six connections to a host, and needs others for pages and actions."""
TURN = 1.0
"""Seconds between two looks at the open streams."""
SHARE = 20.0
"""A part is drawn again only after so many times the time that drawing it took; the first may have loaded templates."""
MOST_DRAWINGS = 6
"""Parts that are drawn in one turn, so that their cost does not rise with the number of streams; others wait for it."""
LATE = 15.0
"""Seconds after which the viewers of a part that is still being drawn are notified."""
HEARTBEAT = 15.0
"""Seconds after which a stream without news gets a comment, so that proxies keep it open."""
EVENTS = b"text/event-stream; charset=utf-8"
_UNBUFFERED = b"X-Accel-Buffering: no\r\n"  # nginx passes each piece on immediately
_BEGIN = b"retry: 3000\n\n"
_COMMENT = b":\n\n"
_OVER = b"event: over\ndata:\n\n"
_LATE = b"event: stale\ndata: The server has not answered for %d s.\n\n" % LATE

OF_DELIVERIES: tuple[type, ...] = (DeadLettered, DeadLettersEnded, Redriven, StoreChanged)
"""Events that change what pages of deliveries show, beside those that `Traffic` counts."""
OF_SERVER: tuple[type, ...] = (
    *(Adopted, ReloadEnded, PinEnded, ProbationEnded, RolloutRecorded),
    *(VersionClosed, VersionEnded, CircuitChanged, PauseChanged, InterpreterRestarted),
)
"""Events that change what any page shows."""


class Pace(Struct, frozen=True, kw_only=True):
    """
    The times between two drawings of a part.

    :ivar often: seconds from one drawing to the next when something has happened.
    :ivar seldom: when nothing has, for what no event reports: times that go by, and changes of other servers.
    :ivar shows_deliveries: whether it is drawn again for events of deliveries.
    """

    often: float
    seldom: float
    shows_deliveries: bool = True


class LivePage(Struct, frozen=True, kw_only=True):
    """
    A page that is looked at.

    :ivar page: draws the page.
    :ivar in_path: the arguments of ``page``.
    :ivar target: its path and query, which tell it from others.
    """

    page: Page
    in_path: Mapping[str, Any]
    target: str
    query: Mapping[str, str]
    pace: Pace


@define(eq=False)
class Viewer:
    """
    One open page.

    :ivar seen: the event that was sent last.
    :ivar reached_at: when anything was (seconds of the clock).
    :ivar after: it gets no drawing that began before: its page shows more than that (seconds of the clock).
    """

    stream: Stream
    session: Session
    reached_at: float
    after: float = -inf
    seen: bytes = b""


@define(eq=False)
class LivePart:
    """
    The part of a page, as users of one role see it.

    :ivar visit: that of its drawings, which belong to no session: a mark stands where the token of each viewer comes.
    :ivar event: the last drawing, as an event; empty before the first.
    :ivar counted: the events that had happened before it.
    :ivar drawn_at: when that drawing began.
    :ivar began_at: when the newest one did, which may still run (seconds of the clock).
    :ivar again_at: when it may be drawn again.
    :ivar old_at: when it is, even if nothing happens.
    """

    page: LivePage
    visit: Visit
    viewers: list[Viewer] = field(factory=list)
    event: bytes = b""
    counted: int = -1
    drawn_at: float = -inf
    began_at: float = -inf
    again_at: float = -inf
    old_at: float = -inf
    is_drawing: bool = False


class Live:
    """The open streams of a server."""

    def __init__(self, clock: IReactorTime, desk: Desk, door: Door, traffic: Traffic, lifecycle: Lifecycle) -> None:
        self._clock = clock
        self._desk = desk
        self._door = door
        self._traffic = traffic
        self._of_deliveries = 0
        self._of_server = 0
        self._mark = token_urlsafe(SIZE)
        self._parts: dict[tuple[str, Role], LivePart] = {}
        self._turning: IDelayedCall | None = None
        self._drawings: set[Deferred[None]] = set()
        for kind in OF_DELIVERIES:
            lifecycle.subscribe(kind, self._count_deliveries)
        for kind in OF_SERVER:
            lifecycle.subscribe(kind, self._count_server)

    def _count_deliveries(self, event: object) -> None:
        self._of_deliveries += 1

    def _count_server(self, event: object) -> None:
        self._of_server += 1

    def open(self, request: HarnRequest, page: LivePage, session: Session) -> None:
        """
        Answer a request with the stream of a page.

        :raises Saturated: there are as many as there may be; the page then asks for its part by itself.
        :raises ShuttingDown: the server is going down.
        """
        self._check_room(session)
        stream = begin_stream(request, EVENTS, GUARDED + _UNBUFFERED)
        stream.send(_BEGIN)
        role = session.identity.role
        part = self._parts.get((page.target, role))
        if part is None:
            stand_in = Session(name=b"", key=b"", identity=session.identity, csrf=self._mark, ends_at=inf)
            visit = Visit(session=stand_in, query={**page.query, PART: "1"})
            part = self._parts[page.target, role] = LivePart(page, visit)
        part.viewers.append(self._viewer_of(part, stream, session))
        if self._turning is None:
            self._turning = self._clock.callLater(0.0, self._turn)
        else:
            self._turning.reset(0.0)

    def _viewer_of(self, part: LivePart, stream: Stream, session: Session) -> Viewer:
        """Return a viewer who gets the last drawing only if nothing has happened since: its page is newer than that."""
        now = self._clock.seconds()
        is_current = self._counted(part) == part.counted and now < part.drawn_at + part.page.pace.often
        if is_current:
            return Viewer(stream, session, now)
        part.old_at = now
        return Viewer(stream, session, now, after=now)

    def _check_room(self, session: Session) -> None:
        viewers = [each for part in self._parts.values() for each in part.viewers if each.stream.is_open]
        if sum(each.session is session for each in viewers) >= MOST_OF_SESSION:
            raise Saturated(f"this session has {MOST_OF_SESSION} live pages, which is the limit", retry_after=60)
        if len(viewers) >= MOST_STREAMS:
            raise Saturated(f"there are {MOST_STREAMS} live pages, which is the limit of a server", retry_after=60)

    def close(self) -> None:
        """End all streams, and what is being drawn for them: a stop does not wait for that."""
        if self._turning is not None:
            self._turning.cancel()
            self._turning = None
        for drawing in tuple(self._drawings):
            drawing.cancel()
        parts, self._parts = self._parts, {}
        for part in parts.values():
            for viewer in part.viewers:
                viewer.stream.end()

    # Each turn

    def _turn(self) -> None:
        """Look at each part; as long as there is one, again soon."""
        self._turning = None
        now = self._clock.seconds()
        for key, part in tuple(self._parts.items()):
            if part.is_drawing and now >= part.began_at + LATE:
                part.event, part.drawn_at = _LATE, now
            self._send(part)
            if not part.viewers:
                del self._parts[key]
        due = [part for part in self._parts.values() if self._is_due(part, now)]
        for part in sorted(due, key=lambda part: part.began_at)[:MOST_DRAWINGS]:
            self._begin_drawing(part)
        if self._parts:
            self._turning = self._clock.callLater(TURN, self._turn)

    def _begin_drawing(self, part: LivePart) -> None:
        drawing = Deferred.fromCoroutine(self._draw(part))
        if not drawing.called:
            self._drawings.add(drawing)
            drawing.addBoth(lambda _: self._drawings.discard(drawing))

    def _is_due(self, part: LivePart, now: float) -> bool:
        if part.is_drawing or now < part.again_at:
            return False
        return self._counted(part) != part.counted or now >= part.old_at

    def _counted(self, part: LivePart) -> int:
        """Return how many events have happened that change a part."""
        of_deliveries = self._traffic.changes + self._of_deliveries if part.page.pace.shows_deliveries else 0
        return self._of_server + of_deliveries

    async def _draw(self, part: LivePart) -> None:
        """Draw a part, and send it to its viewers if it differs from its last drawing."""
        pace = part.page.pace
        began = part.began_at = self._clock.seconds()
        part.is_drawing, part.counted = True, self._counted(part)
        try:
            answer = await part.page.page(self._desk, part.visit, **part.page.in_path)
            event = framed(answer.body) if answer.status == 200 else _OVER
        except CancelledError:  # by `close`
            return
        except Exception as error:
            if not isinstance(error, Refused | EventLogUnavailable):
                log.failure("drawing {target} failed", target=part.page.target)
            is_gone = status_of(type(error)).code == 404
            event = _OVER if is_gone else framed(reason_of_failure(error).encode("utf-8", "replace"), b"stale")
        ended = self._clock.seconds()
        part.is_drawing = False
        part.again_at = ended + max(pace.often, SHARE * (ended - began) if part.event else 0.0)
        part.old_at = ended + pace.seldom
        part.event, part.drawn_at = event, began
        self._send(part)

    def _send(self, part: LivePart) -> None:
        """Send viewers what is new, if they have read what came before; drop those that have ended."""
        now, event = self._clock.seconds(), part.event
        part.viewers = [each for each in part.viewers if self._goes_on(each, part)]
        for viewer in part.viewers:
            if viewer.seen != event and part.drawn_at >= viewer.after:
                token = viewer.session.csrf.encode("ascii")
                if viewer.stream.send(event.replace(self._mark.encode("ascii"), token)):
                    viewer.seen, viewer.reached_at = event, now
                if event is _OVER:
                    viewer.stream.end()
            elif now >= viewer.reached_at + HEARTBEAT and viewer.stream.send(_COMMENT):
                viewer.reached_at = now

    def _goes_on(self, viewer: Viewer, part: LivePart) -> bool:
        """Return whether a viewer is there, and its session is one of the role of the part; else end its stream."""
        stream, session = viewer.stream, viewer.session
        if stream.is_open and self._door.holds(session) and session.identity.role is part.visit.caller.role:
            return True
        stream.send(_OVER)
        stream.end()
        return False


def framed(body: bytes, name: bytes = b"") -> bytes:
    """Return a text as an event; ``name``: of one that is not a part."""
    lines = b"\n".join(b"data: " + line for line in body.splitlines())
    return (b"event: %b\n" % name if name else b"") + lines + b"\n\n"
