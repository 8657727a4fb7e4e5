"""
Alerts of a running server: lifecycle events, the time and figures of the store are passed to the board.

`AlertWatcher` has the subscribers to lifecycle events. `AlertService` continues from what an earlier server left, and
keeps the state of alerts for the next. `LatenessService` looks for deliveries that have been ready for too long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.alerts.board import Board
from harn.alerts.keeping import Keeper
from harn.alerts.model import AlertRecord, AlertSubject, Happened, Rule, rules_of
from harn.alerts.runner import AlertRunner
from harn.alerts.senders import AlertTarget
from harn.clocks import WallTime
from harn.connectors.signatures import decode_standard_secret
from harn.dispatch.dispatcher import Dispatcher
from harn.errors import EventLogUnavailable
from harn.lifecycle import (
    CIRCUIT_CLOSED,
    CIRCUIT_OPEN,
    Accepted,
    CircuitChanged,
    DeadLettered,
    DeadLettersEnded,
    Lifecycle,
    Redriven,
    Settled,
)
from harn.manifest import alerts as kinds
from harn.manifest.alerts import AlertSpec, SmtpSettings
from harn.manifest.model import TriggerSpec
from harn.model.delivery import DeadLetter
from harn.reload.interfaces import Adopted, ReloadEnded
from harn.reload.report import ERROR, START, ReloadReport
from harn.store.statistics import ITotals
from harn.waiting import retry

log = Logger(namespace="harn.alerts")

MOST_EARLY = 10_000
"""Events that are remembered until the state of an earlier server is read."""
RELOAD = "reload"
INTERVAL = 1.0
"""Seconds between two looks at the clock."""
SHARE = 0.1
"""Of the shortest time that an alert allows, between two looks at the store; see also `LONGEST`."""
KEEPING = 60.0
"""Seconds after which the times of silences are written again."""
LONGEST = 30.0
"""Seconds between two looks at the store, at most."""


def target_of(spec: AlertSpec, smtp: SmtpSettings, secrets: Mapping[str, bytes]) -> AlertTarget:
    """Return where the messages of an alert go; ``secrets`` are values by reference, all of which resolve."""
    if spec.to == kinds.EMAIL:
        password = None if smtp.password_secret is None else secrets[smtp.password_secret]
        return AlertTarget(to=spec.to, shown=spec.target, address=spec.target, smtp=smtp, password=password)
    key = None if spec.signing_secret is None else decode_standard_secret(secrets[spec.signing_secret])
    address = spec.target if spec.url_secret is None else secrets[spec.url_secret].decode("utf-8")
    return AlertTarget(to=spec.to, shown=spec.target, address=address, key=key)


def circuit_name(trigger_id: str, destination: str) -> str:
    """Return the name of a circuit among the subjects of an alert."""
    return f"{trigger_id} {destination}"


class AlertWatcher:
    """
    Passes lifecycle events to the board, and wakes the runner where one changed an alert.

    Events before `begin` are kept, and counted then.
    """

    def __init__(self, lifecycle: Lifecycle, wall: WallTime, board: Board, runner: AlertRunner) -> None:
        self._wall = wall
        self._board = board
        self._runner = runner
        self._early: deque[partial[None]] | None = deque(maxlen=MOST_EARLY)
        self._secrets: Mapping[str, bytes] = {}
        self._smtp = SmtpSettings()
        self._triggers: Mapping[str, TriggerSpec] = {}
        self._has_adopted = False
        self._failed_start: ReloadReport | None = None
        lifecycle.subscribe(Adopted, self._adopted)
        lifecycle.subscribe(Accepted, self._accepted)
        lifecycle.subscribe(Settled, self._settled)
        lifecycle.subscribe(DeadLettered, self._dead_lettered)
        lifecycle.subscribe(DeadLettersEnded, self._dead_letters_ended)
        lifecycle.subscribe(Redriven, self._redriven)
        lifecycle.subscribe(CircuitChanged, self._circuit_changed)
        lifecycle.subscribe(ReloadEnded, self._reload_ended)

    def begin(self) -> None:
        """Pass on what has happened so far, and from now on each event as it happens."""
        self._end_circuits(self._wall.seconds())
        early, self._early = self._early, None
        for each in early or ():
            each()
        self._runner.run()

    def _pass(self, change: partial[None]) -> None:
        """Change the board, now or when it is complete; wake the runner where that changed an alert."""
        if self._early is not None:
            self._early.append(change)
            return
        change()
        if self._board.changed:
            self._runner.run()

    # What is in force

    def _adopted(self, event: Adopted) -> None:
        """Put the alerts of a new generation in force, of those triggers that are not as they were."""
        generation, plan, now = event.candidate.generation, event.candidate.plan, self._wall.seconds()
        manifest, secrets = generation.inputs.manifest, event.candidate.alert_secrets
        settings = manifest.orchestrator
        renewed = self._has_adopted and (secrets, settings.smtp) != (self._secrets, self._smtp)
        self._secrets, self._smtp, self._has_adopted = secrets, settings.smtp, True
        self._triggers = manifest.triggers
        for trigger_id in plan.removed:
            self._board.adopt(trigger_id, (), (), now)
        before = [each for each in self._board.scopes if each is not None and each in plan.changes]
        for trigger_id in dict.fromkeys((*event.candidate.alerting, *before)):
            self._adopt(trigger_id, manifest.triggers[trigger_id].alerts, (trigger_id,), now)
        self._adopt(None, settings.alerts, tuple(manifest.triggers) if settings.alerts else (), now)
        self._board.watch(plan.added, frozenset(plan.removed), now)
        if renewed:
            self._renew()
        self._end_circuits(now)
        self._runner.adopted(generation.number, manifest.package, settings.console_url)

    def _adopt(
        self, trigger_id: str | None, alerts: tuple[AlertSpec, ...], triggers: tuple[str, ...], now: float
    ) -> None:
        found: list[tuple[Rule, AlertTarget]] = [
            (rule, target_of(rule.spec, self._smtp, self._secrets)) for rule in rules_of(alerts, trigger_id)
        ]
        self._board.adopt(trigger_id, found, triggers, now)

    def _renew(self) -> None:
        """Send every alert with the new secrets, and over the new mail server; also what waits."""
        for entry in self._board:
            entry.target = target_of(entry.rule.spec, self._smtp, self._secrets)

    def _end_circuits(self, now: float) -> None:
        """End the circuits of destinations that no trigger has any more: nothing would close them."""
        for entry in self._board.concerned(kinds.CIRCUIT_OPEN, None):
            live = {
                name: subject
                for name, subject in entry.state.subjects.items()
                if subject.trigger_id in self._triggers
                and name == circuit_name(subject.trigger_id, self._triggers[subject.trigger_id].handler)
            }
            if len(live) < len(entry.state.subjects):
                self._board.replace_subjects(entry, live, now)

    # Deliveries

    def _accepted(self, event: Accepted) -> None:
        for each in event.dead:
            new = each.delivery
            assert new.dead is not None
            self._died(new.trigger_id, new.dead, new.event_id)
        for trigger_id in {each.delivery.trigger_id for each in event.deliveries if each.delivery.replay_of is None}:
            if self._board.concerned(kinds.SILENT, trigger_id):
                self._pass(partial(self._board.accepted, trigger_id, self._wall.seconds()))

    def _settled(self, event: Settled) -> None:
        for each in event.others:
            if each.settlement.dead is not None:
                self._died(each.trigger_id, each.settlement.dead, each.event_id)

    def _died(self, trigger_id: str, dead: DeadLetter, event_id: str) -> None:
        reason = dead.reason if dead.error_class in ("", dead.reason) else f"{dead.reason} ({dead.error_class})"
        happened = Happened(at=self._wall.seconds(), trigger_id=trigger_id, reason=reason, event_id=event_id)
        self._pass(partial(self._board.happened, kinds.DEAD_LETTER, happened))

    def _dead_lettered(self, event: DeadLettered) -> None:
        now = self._wall.seconds()
        happened = Happened(at=now, trigger_id=event.trigger_id, count=event.count, reason=event.reason)
        self._pass(partial(self._board.happened, kinds.DEAD_LETTER, happened))

    def _dead_letters_ended(self, event: DeadLettersEnded) -> None:
        self._dealt_with(event.trigger_id, event.count)

    def _redriven(self, event: Redriven) -> None:
        self._dealt_with(event.trigger_id, event.count)

    def _dealt_with(self, trigger_id: str, count: int) -> None:
        self._pass(partial(self._board.dealt_with, kinds.DEAD_LETTER, trigger_id, count, self._wall.seconds()))

    # Circuits

    def _circuit_changed(self, event: CircuitChanged) -> None:
        now, name = self._wall.seconds(), circuit_name(event.trigger_id, event.destination)
        if event.state == CIRCUIT_CLOSED:
            self._pass(partial(self._board.ended, kinds.CIRCUIT_OPEN, name, event.trigger_id, now))
        elif event.state == CIRCUIT_OPEN:
            reason = f"{event.failures} deliveries to {event.destination} failed"
            subject = AlertSubject(trigger_id=event.trigger_id, since=now, reason=reason)
            self._pass(partial(self._board.began, kinds.CIRCUIT_OPEN, name, subject))
            happened = Happened(at=now, trigger_id=event.trigger_id, reason=reason)
            self._pass(partial(self._board.happened, kinds.CIRCUIT_OPEN, happened))

    # Reloads

    def _reload_ended(self, event: ReloadEnded) -> None:
        report = event.report
        if report is None:
            return
        if not self._has_adopted:
            self._failed_start = report if report.status == ERROR else None
        elif report.status == ERROR:
            self._reload_failed(report)
        elif report.ok and self._failed_start is not None and report.source == START:
            self._reload_failed(self._failed_start)  # it began with the last live generation, as its files are broken
            self._failed_start = None
        elif report.ok and not report.renews and (report.source != START or report.recalled is None):
            self._pass(partial(self._board.ended, kinds.RELOAD_FAILED, RELOAD, None, self._wall.seconds()))

    def _reload_failed(self, report: ReloadReport) -> None:
        now = self._wall.seconds()
        more = f" (and {len(report.problems) - 1} more problems)" if len(report.problems) > 1 else ""
        why = f"{report.problems[0]}{more}" if report.problems else report.error or "unknown"
        reason = f"stage {report.stage or 'unknown'}: {why}"
        subject = AlertSubject(trigger_id="", since=now, reason=reason)
        self._pass(partial(self._board.began, kinds.RELOAD_FAILED, RELOAD, subject, everywhere=True))
        happened = Happened(at=now, reason=reason)
        self._pass(partial(self._board.happened, kinds.RELOAD_FAILED, happened, everywhere=True))


class AlertService(Service):
    """
    Restores the alerts of an earlier server once the first generation serves, and stores them all at the end.

    :ivar board: every alert in force.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        board: Board,
        keeper: Keeper,
        runner: AlertRunner,
        watcher: AlertWatcher,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self.board = board
        self._keeper = keeper
        self.runner = runner
        self._watcher = watcher
        self._loading: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None

    def begin(self) -> None:
        """Called when the server's first generation serves: read what an earlier server left, and begin. Once."""
        if self._loading is None and self._stopping is None:
            self._loading = Deferred.fromCoroutine(self._load())
            self._loading.addErrback(self._not_begun)

    def hand_over(self) -> None:
        """Decide, send and keep nothing more: another program continues with the alerts."""
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop(keep=False))

    def stopService(self) -> Deferred[None]:
        """End; fires when what was being sent is cut off, and everything is kept."""
        Service.stopService(self)
        if self._stopping is None:
            self._stopping = Deferred.fromCoroutine(self._stop(keep=True))
        return self._stopping

    async def _stop(self, *, keep: bool) -> None:
        if self._loading is not None:
            self._loading.cancel()
        await self.runner.stop(keep=keep)

    def _not_begun(self, failure: Failure) -> None:
        if self._stopping is None:
            log.failure("alerts cannot begin", failure)

    async def _load(self) -> None:
        records = await retry(self._clock, self._keeper.load, EventLogUnavailable, pause=1.0, longest=30.0)
        now = self._wall.seconds()
        for entry in self.board:
            record = records.pop(entry.rule.key, None)
            if record is None:
                continue
            if entry.silence is not None and record.silence is not None:
                downtime = max(0.0, now - record.saved_at)
                entry.silence.restore(record.silence, downtime, now)
            self.board.restore(entry, record.state, now)
        await self._drop(records)
        self.runner.start()
        self._watcher.begin()

    async def _drop(self, records: Mapping[str, AlertRecord]) -> None:
        """Remove the remains of alerts that are not in force any more."""
        for record in records.values():
            if record.state.pending:
                log.warn(
                    "alert {name} is not in the manifest any more: {count} of its messages are not sent",
                    name=record.name,
                    count=len(record.state.pending),
                )
        await self._keeper.remove(list(records))


class LatenessService(TimerService):
    """Looks for late deliveries every second; without an alert on lateness that costs a look at a table."""

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        totals: ITotals,
        dispatcher: Dispatcher,
        board: Board,
        runner: AlertRunner,
    ) -> None:
        TimerService.__init__(self, INTERVAL, lambda: Deferred.fromCoroutine(self.look()))
        self.clock = clock
        self._clock = clock
        self._wall = wall
        self._totals = totals
        self._dispatcher = dispatcher
        self._board = board
        self._runner = runner
        self._next_at = self._keep_at = 0.0

    async def look(self) -> None:
        """Look once, and write down silences now and then."""
        if self._clock.seconds() >= self._keep_at:
            self._keep_at = self._clock.seconds() + KEEPING
            self._runner.keep_silences()
        await self._look_for_late()

    async def _look_for_late(self) -> None:
        """Look once, if it is time; a store that cannot be read costs this turn alone."""
        alerts = self._board.concerned(kinds.LATE, None)
        if not alerts or self._clock.seconds() < self._next_at:
            return
        shortest = min(entry.rule.spec.within for entry in alerts)
        self._next_at = self._clock.seconds() + min(LONGEST, shortest * SHARE)
        try:
            found = await self._totals.backlogs(self._wall.seconds(), tuple(self._dispatcher.in_progress))
        except EventLogUnavailable as error:
            log.debug("late deliveries cannot be looked up: {why}", why=str(error))
            return
        now = self._wall.seconds()
        since = {each.trigger_id: each.oldest_ready for each in found.values() if each.oldest_ready is not None}
        for entry in self._board.concerned(kinds.LATE, None):
            within = entry.rule.spec.within
            late = {
                trigger_id: AlertSubject(trigger_id=trigger_id, since=at)
                for trigger_id, at in since.items()
                if now >= at + within and entry.rule.covers(trigger_id)
            }
            self._board.replace_subjects(entry, late, now)
        if self._board.changed:
            self._runner.run()
