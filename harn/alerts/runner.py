"""
Runs the alerts: updates them when their time comes, stores changed states, and sends the messages that are due.

Messages to one receiver go one after the other, a few receivers at the same time; a receiver that asks for a pause gets
it. One that cannot be reached is tried again with growing pauses, for a day. Nothing here is waited for by a delivery
or a reload.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.alerts import machine
from harn.alerts.board import Board, BoardEntry
from harn.alerts.keeping import Keeper
from harn.alerts.messages import AlertMessage, AlertOrigin, write_message
from harn.alerts.senders import Senders
from harn.clocks import WallTime, rfc3339, sleep_until
from harn.errors import AlertNotSent
from harn.manifest.alerts import SILENT
from harn.model.display import visible
from harn.observability.metrics import Metrics

log = Logger(namespace="harn.alerts")

MOST_AT_ONCE = 8
"""Messages that are sent at the same time, each to another receiver."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
"""Seconds until a message that could not be sent is tried again: at first, and at most."""
LONG = 900.0
"""Seconds after which a receiver that cannot be reached is more than a passing trouble."""
KEEPING = 5.0
"""Seconds that a message waits until it is in the store that it is sent."""


class AlertRunner:
    """
    Looks at a board when its time comes, keeps what changed, and sends the messages that are due.

    :param host: this machine's name, for messages.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        board: Board,
        keeper: Keeper,
        senders: Senders,
        metrics: Metrics,
        host: str,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self.board = board
        self._keeper = keeper
        self._senders = senders.by_way
        self._metrics = metrics
        self.origin = AlertOrigin(host=host, package="", generation=0)
        self._waiting: dict[BoardEntry, None] = {}
        self._sending: dict[str, Deferred[None]] = {}  # by address
        self._resting: dict[str, float] = {}  # until when (seconds, Unix), by address
        self._timer: Any = None
        self._is_running = self._is_in_run = self._is_asked_again = False

    @property
    def pending(self) -> int:
        """Return how many messages wait to be sent, or are being sent."""
        return sum(len(entry.state.pending) for entry in self._waiting)

    def start(self) -> None:
        """Begin: until now what happened changed the board, and nothing else."""
        self._is_running = True
        self.run()

    def adopted(self, generation: int, package: str, console_url: str | None = None) -> None:
        """Record the generation that messages are from, and start the series of its alerts at 0."""
        self.origin = replace(self.origin, generation=generation, package=package, console_url=console_url)
        for entry in self.board:
            self._metrics.alert(entry.rule.spec.on, entry.rule.spec.to)
        self.run()

    def run(self) -> None:
        """Called after anything changed the board: keep it, send what is due, and plan the next look."""
        if not self._is_running or self._is_in_run:
            self._is_asked_again = True
            return
        self._is_in_run = self._is_asked_again = True
        try:
            while self._is_asked_again:
                self._is_asked_again = False
                times = self._step()
        finally:
            self._is_in_run = False
        self._plan(min(times, default=None))

    def _step(self) -> list[float]:
        """Look at the board, begin what is due, and return when there is something to do next."""
        now = self._wall.seconds()
        look_at = self.board.look(now)
        for entry in self.board.take_changed():
            self._keeper.mark(entry)
            if entry.state.pending:
                self._waiting[entry] = None
            else:
                self._waiting.pop(entry, None)
        self._resting = {address: until for address, until in self._resting.items() if until > now}
        while (chosen := next(self._due(now), None)) is not None:
            self._begin(chosen)
        times = list(self._next_tries(now))
        return times if look_at is None else [look_at, *times]

    def keep_silences(self) -> None:
        """Write when each trigger accepted something last, so that a crash loses little of a silence."""
        for entry in self.board.concerned(SILENT, None) if self._is_running else ():
            self._keeper.mark(entry)

    async def stop(self, *, keep: bool = True) -> None:
        """
        Send nothing more. What was being sent is due again at the next start.

        :param keep: write the state once more; not where another program continues with it.
        """
        was_running, self._is_running = self._is_running, False
        self._plan(None)
        sending = tuple(self._sending.values())
        for each in sending:
            each.cancel()
        await gatherResults(sending, consumeErrors=True)
        if keep and was_running:
            for entry in {*self.board, *self._waiting}:
                self._keeper.mark(entry)
            await self._keeper.save()
        self._keeper.close()

    async def try_out(self, entry: BoardEntry, message: AlertMessage) -> None:
        """
        Send a message of a test, whatever waits.

        :raises AlertNotSent: it cannot be sent.
        """
        counts = self._metrics.alert(entry.rule.spec.on, entry.rule.spec.to)
        try:
            await self._senders[entry.target.to].send(entry.target, message)
        except AlertNotSent:
            counts.failed += 1
            raise
        counts.sent += 1

    # Choosing

    def _due(self, now: float) -> Iterator[BoardEntry]:
        """Yield the messages that may be sent now: the first that waits for each receiver that is free."""
        for entry in tuple(self._waiting):
            if len(self._sending) >= MOST_AT_ONCE:
                return
            address = entry.target.address
            if address not in self._sending and address not in self._resting and self._is_due(entry, now):
                yield entry

    def _is_due(self, entry: BoardEntry, now: float) -> bool:
        # A wall clock that was set back makes nothing wait for longer than the longest pause.
        due_at = entry.state.pending[0].due_at
        return due_at <= now or due_at > now + 6 * LONGEST_PAUSE

    def _next_tries(self, now: float) -> Iterator[float]:
        """Yield when each that waits may be sent, unless another message must end first."""
        if len(self._sending) < MOST_AT_ONCE:
            for entry in tuple(self._waiting):
                address = entry.target.address
                if address not in self._sending:
                    yield max(entry.state.pending[0].due_at, self._resting.get(address, now))

    def _plan(self, at: float | None) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if at is not None:
            self._timer = self._clock.callLater(sleep_until(at, self._wall), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.run()

    # Sending

    def _begin(self, entry: BoardEntry) -> None:
        address, now = entry.target.address, self._wall.seconds()
        state, old = machine.given_up(entry.state, now)
        for each in old:
            log.error(
                "alert {name}: a message of {at} is given up: {why}",
                name=entry.rule.name,
                at=rfc3339(each.notice.made_at),
                why=each.error,
            )
        self.board.put(entry, machine.begin_sending(state) if state.pending else state, now)
        if not entry.state.pending:
            self._waiting.pop(entry, None)
            return
        sending = Deferred.fromCoroutine(self._send(entry))
        if not sending.called:
            self._sending[address] = sending
        sending.addErrback(_cut_off)
        sending.addBoth(lambda _: self._ended(address))

    def _ended(self, address: str) -> None:
        self._sending.pop(address, None)
        self.run()

    async def _send(self, entry: BoardEntry) -> None:
        message = write_message(entry.rule, entry.state.pending[0].notice, self.origin)
        counts = self._metrics.alert(entry.rule.spec.on, entry.rule.spec.to)
        await self._kept(entry)
        error: AlertNotSent | None = None
        try:
            await self._senders[entry.target.to].send(entry.target, message)
        except AlertNotSent as failed:
            error = failed
        except CancelledError:
            raise  # the server ends
        except Exception as failed:
            log.failure("sending alert {name} failed", name=entry.rule.name)
            error = AlertNotSent(type(failed).__name__)
        now = self._wall.seconds()
        if error is None:
            counts.sent += 1
            log.info(
                "alert {name} sent to {to}: {words}", name=entry.rule.name, to=entry.target.shown, words=message.subject
            )
            self.board.put(entry, machine.sent(entry.state, now), now)
            await self._kept(entry)
        else:
            counts.failed += 1
            self._failed(entry, error, now)
        if not entry.state.pending:
            self._waiting.pop(entry, None)

    async def _kept(self, entry: BoardEntry) -> None:
        """Wait until the store has the state, not for long: after a crash no message is made, or sent, again."""
        self._keeper.mark(entry)
        try:
            await Deferred.fromCoroutine(self._keeper.save()).addTimeout(KEEPING, self._clock)
        except TimeoutError:
            log.warn("alert {name}: its state could not be kept in time", name=entry.rule.name)

    def _failed(self, entry: BoardEntry, error: AlertNotSent, now: float) -> None:
        attempts = entry.state.pending[0].attempts + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 10))
        if error.retry_after is not None:
            pause = max(error.retry_after, 1.0)
            self._resting[entry.target.address] = now + pause
        self.board.put(entry, machine.not_sent(entry.state, str(error), now, now + pause), now)
        since = entry.state.pending[0].failing_since or now
        advice = "" if now - since < LONG else f"; {advise(entry)}"
        log.warn(
            "alert {name} cannot be sent to {to}: {why} (try {attempts}, the next at {next}){advice}",
            name=entry.rule.name,
            to=entry.target.shown,
            why=visible(str(error)),
            attempts=attempts,
            next=rfc3339(now + pause),
            advice=advice,
        )


def _cut_off(failure: Failure) -> None:
    """Called when sending did not come to an end: at the server's end, or for a defect."""
    if not failure.check(CancelledError):
        log.failure("sending an alert failed", failure)


def advise(entry: BoardEntry) -> str:
    """Return advice for an alert that cannot be sent for long."""
    spec = entry.rule.spec
    if entry.target.smtp is not None:
        what = f"check [orchestrator.smtp] (host {entry.target.smtp.host}) and address"
    else:
        what = (
            f"check the value of secret {spec.url_secret}" if spec.url_secret else f"check the address {spec.address}"
        )
    return f"{what}, then try: harn orchestrator alerts --test {entry.rule.name}"
