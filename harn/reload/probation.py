"""
Probation: a generation that was adopted, and is undone by itself unless it proves good.

It ends when somebody confirms it, when the time for watching its failures has passed without too many, when another
generation takes its place, or when it is undone: by a rollback to the generation that served before it was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from harn.clocks import rfc3339
from harn.errors import NothingPending
from harn.manifest.model import ReloadSettings
from harn.model.durations import format_duration
from harn.model.shares import FailureLimit, format_share
from harn.reload.judges import add_judge, remove_judge
from harn.reload.report import ReloadRequest
from harn.triggers.binding import BindingVersion

NAME = "probation"
"""What the store keeps it under."""

CONFIRMED, PASSED, SUPERSEDED, REVERTED = "confirmed", "passed", "superseded", "reverted"
"""How a probation ends."""


@frozen(kw_only=True)
class Probation:
    """
    The terms of one probation. Times are seconds, Unix.

    :ivar generation: the one that is on probation; ``fallback``: the one whose content takes its place.
    :ivar confirm_by: when it is undone unless it was confirmed; None when nobody need confirm it.
    :ivar limit: failed attempts of its new versions at which it is undone, until ``watch_until``; None for no such.
    """

    generation: int
    fallback: int
    began_at: float
    confirm_by: float | None = None
    limit: FailureLimit | None = None
    watch_until: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the shape in which it is shown and kept."""
        document: dict[str, Any] = {
            "generation": self.generation,
            "fallback": self.fallback,
            "began_at": rfc3339(self.began_at),
            "times": [self.began_at, self.confirm_by, self.watch_until],
        }
        if self.confirm_by is not None:
            document["confirm_by"] = rfc3339(self.confirm_by)
        if self.limit is not None and self.watch_until is not None:
            document["revert_on_failures"] = format_share(self.limit.rate)
            document["min"] = self.limit.minimum
            document["until"] = rfc3339(self.watch_until)
            document["limit"] = [self.limit.rate, self.limit.minimum]
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Probation:
        """
        Read what `to_dict` made.

        :raises LookupError, TypeError, ValueError: it is something else.
        """
        began_at, confirm_by, watch_until = document["times"]
        limit = document.get("limit")
        return cls(
            generation=int(document["generation"]),
            fallback=int(document["fallback"]),
            began_at=float(began_at),
            confirm_by=None if confirm_by is None else float(confirm_by),
            limit=None if limit is None else FailureLimit(rate=float(limit[0]), minimum=int(limit[1])),
            watch_until=None if watch_until is None else float(watch_until),
        )

    def failed(self, now: float, attempts: int, failures: int) -> str | None:
        """Say why these attempts of its new versions undo it; None when they do not."""
        limit = self.limit
        if limit is None or self.watch_until is None or now >= self.watch_until:
            return None
        if not limit.is_exceeded(attempts, failures):
            return None
        return f"{failures} of {attempts} attempts of the new versions failed, more than {format_share(limit.rate)}"

    def lapsed(self, now: float) -> str | None:
        """Say why the time that has passed undoes it; None when it does not."""
        if self.confirm_by is None or now < self.confirm_by:
            return None
        return f"nobody confirmed it within {format_duration(round(self.confirm_by - self.began_at, 3))}"

    def is_passed(self, now: float) -> bool:
        """Tell whether nothing can undo it any more."""
        return self.confirm_by is None and (self.watch_until is None or now >= self.watch_until)

    def next_turn(self, now: float) -> float | None:
        """Give the next time at which it is to be looked at."""
        return min((at for at in (self.confirm_by, self.watch_until) if at is not None and at > now), default=None)


def terms(
    request: ReloadRequest, settings: ReloadSettings, generation: int, fallback: int, now: float
) -> Probation | None:
    """
    Give the probation of a generation that is adopted now; None for none.

    What the request says wins over ``[orchestrator.reload]``. A rollback is on none: it ends one.
    """
    if request.recall is not None:
        return None
    confirm_within = settings.confirm_within if request.confirm_within is None else request.confirm_within
    limit = request.revert_limit
    if limit is None and settings.revert_on_failures is not None:
        limit = FailureLimit(rate=settings.revert_on_failures, minimum=settings.revert_min)
    if confirm_within is None and limit is None:
        return None
    watched = settings.revert_for if request.revert_for is None else request.revert_for
    return Probation(
        generation=generation,
        fallback=fallback,
        began_at=now,
        confirm_by=None if confirm_within is None else now + confirm_within,
        limit=limit,
        watch_until=None if limit is None else now + watched,
    )


@frozen
class Trial:
    """A probation under way: its new versions, and what they had attempted when it began."""

    probation: Probation
    bindings: tuple[BindingVersion, ...]
    before: tuple[int, int] = (0, 0)

    def counts(self) -> tuple[int, int]:
        """How many attempts its versions made since, and how many of them failed."""
        attempts, failures = self.before
        return (
            sum(binding.attempted for binding in self.bindings) - attempts,
            sum(binding.attempts_failed for binding in self.bindings) - failures,
        )


@frozen(kw_only=True)
class Endings:
    """
    What the holder of probations does when one ends.

    :ivar undo: undo it: called with it, its new versions, and why.
    :ivar over: it ended otherwise: called with it, how (`CONFIRMED`, `PASSED`, `SUPERSEDED`), and who ended it.
    """

    undo: Callable[[Probation, tuple[BindingVersion, ...], str], None]
    over: Callable[[Probation, str, str], None]


class Probations:
    """The probation of the live generation, if it is on one: its timer, and who watches its attempts."""

    def __init__(self, clock: IReactorTime, endings: Endings) -> None:
        self._clock = clock
        self._endings = endings
        self._trial: Trial | None = None
        self._timer: IDelayedCall | None = None

    @property
    def current(self) -> Probation | None:
        """The terms of the one under way."""
        return None if self._trial is None else self._trial.probation

    @property
    def bindings(self) -> tuple[BindingVersion, ...]:
        """The new versions of the one under way."""
        return () if self._trial is None else self._trial.bindings

    def describe(self) -> dict[str, Any] | None:
        """Show the one under way, with what its new versions attempted so far."""
        if self._trial is None:
            return None
        attempts, failures = self._trial.counts()
        return {**shown(self._trial.probation), "attempts": attempts, "failures": failures}

    def fallback(self, live: int) -> int:
        """Give the generation that a new one falls back to: never one that is itself on probation."""
        return live if self._trial is None else self._trial.probation.fallback

    def adopted(self, probation: Probation | None, bindings: Iterable[BindingVersion], actor: str) -> None:
        """
        Take notice that a new generation serves, on this probation or none; what was under way is over.

        :param bindings: its new versions.
        :param actor: who adopted it.
        """
        ended = self._stop()
        if probation is not None:
            self._begin(probation, tuple(bindings))
        if ended is not None:
            self._endings.over(ended.probation, SUPERSEDED, actor)

    def resume(self, probation: Probation, bindings: Iterable[BindingVersion]) -> None:
        """Go on with a probation that an earlier server began."""
        self._begin(probation, tuple(bindings))

    def confirm(self, generation: int | None, actor: str) -> int:
        """
        End it well; give the number of the generation that stays.

        :param generation: only if it is this one.
        :raises NothingPending: none is under way, or that of another generation.
        """
        trial = self._trial
        if trial is None:
            raise NothingPending("no generation waits for confirmation")
        number = trial.probation.generation
        if generation is not None and generation != number:
            raise NothingPending(f"generation {number} waits for confirmation, not {generation}")
        self._stop()
        self._endings.over(trial.probation, CONFIRMED, actor)
        return number

    def close(self) -> None:
        """Look no more; the next server goes on with it."""
        self._stop()

    def _begin(self, probation: Probation, bindings: tuple[BindingVersion, ...]) -> None:
        attempts = sum(binding.attempted for binding in bindings)
        failures = sum(binding.attempts_failed for binding in bindings)
        self._trial = Trial(probation, bindings, (attempts, failures))
        if probation.limit is not None:
            for binding in bindings:
                add_judge(binding, self._attempted)
        self._set_timer(probation)

    def _set_timer(self, probation: Probation) -> None:
        now = self._clock.seconds()
        turn = None if probation.lapsed(now) else probation.next_turn(now)  # what lapsed while no server ran: at once
        self._timer = self._clock.callLater(0.0 if turn is None else turn - now, self._look)

    def _attempted(self, binding: BindingVersion) -> None:
        trial = self._trial
        if trial is not None:
            why = trial.probation.failed(self._clock.seconds(), *trial.counts())
            if why is not None:
                self._undo(trial, why)

    def _look(self) -> None:
        self._timer = None
        trial, now = self._trial, self._clock.seconds()
        if trial is None:
            return
        why = trial.probation.lapsed(now)
        if why is not None:
            self._undo(trial, why)
        elif trial.probation.is_passed(now):
            self._stop()
            self._endings.over(trial.probation, PASSED, "probation")
        else:
            self._set_timer(trial.probation)

    def _undo(self, trial: Trial, why: str) -> None:
        self._stop()
        self._endings.undo(trial.probation, trial.bindings, why)

    def _stop(self) -> Trial | None:
        trial, self._trial = self._trial, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if trial is not None:
            for binding in trial.bindings:
                remove_judge(binding, self._attempted)
        return trial


def shown(probation: Probation) -> dict[str, Any]:
    """Give a probation as people read it."""
    return {name: value for name, value in probation.to_dict().items() if name not in ("times", "limit")}
