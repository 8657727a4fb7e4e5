"""
All binding versions that are live or draining, which one is a trigger's newest, and gauges of them.

The registry holds what outlives a generation. It is changed in one synchronous step by a reload's adopt, and by a
draining version's end.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping

from harn.lifecycle import Lifecycle, VersionEnded
from harn.observability.counts import NO_COUNTS
from harn.observability.metrics import Metrics
from harn.triggers.binding import DRAINING, BindingVersion, Stage, drain_all
from harn.triggers.routing import NO_RAMPS, Ramp, share_of

SLICE = 150
"""Versions that one turn of the reactor ends, some 2 ms of work; an adopt that replaces more leaves them to later."""


class Registry:
    """
    Binding versions by trigger id and number.

    :ivar active: the newest version of each trigger of the live manifest. Replaced whole by `adopt` and `end_ramp`.
    :ivar ramps: by trigger id, those that run: the fresh version is in ``active``, the stable one is here alone.
        Replaced whole, too.
    :ivar waiting: for each trigger id, how many of its deliveries wait for a retry's time.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self.active: Mapping[str, BindingVersion] = {}
        self.ramps: dict[str, Ramp] = {}
        self._draining: dict[str, dict[int, BindingVersion]] = {}
        self._replaced_last: dict[str, BindingVersion] = {}  # by the last adopt; these drain, too
        self.waiting: Counter[str] = Counter()
        self._replaced: deque[BindingVersion] = deque()

    def __iter__(self) -> Iterator[BindingVersion]:
        """Yield the versions of `all`."""
        return iter(self.all())

    def all(self) -> list[BindingVersion]:
        """Return every live version, those that ramps replace after the newest ones; then every draining one."""
        return [*self.active.values(), *(ramp.stable for ramp in self.ramps.values()), *self.draining()]

    def draining(self) -> list[BindingVersion]:
        """Return every draining version, the longest draining first."""
        found = [version for versions in self._draining.values() for version in versions.values()]
        found += self._replaced_last.values()
        return sorted(found, key=lambda version: version.draining_since or 0.0)

    def get(self, trigger_id: str, version: int) -> BindingVersion | None:
        """Find a live or draining version by number."""
        live = self.active.get(trigger_id)
        if live is not None and live.version == version:
            return live
        ramp = self.ramps.get(trigger_id)
        if ramp is not None and ramp.stable.version == version:
            return ramp.stable
        replaced = self._replaced_last.get(trigger_id)
        if replaced is not None and replaced.version == version:
            return replaced
        return self._draining.get(trigger_id, {}).get(version)

    def newest(self, trigger_id: str) -> BindingVersion | None:
        """Find the live version of a trigger, or of a removed one the newest that still drains and was not moved on."""
        live = self.active.get(trigger_id)
        if live is not None:
            return live
        draining = self._draining_of(trigger_id)
        # What was moved on is there for what it runs at this moment alone: as after a ramp that was aborted.
        return max(draining, key=lambda version: (not version.is_closed, version.version), default=None)

    def versions(self, trigger_id: str) -> list[BindingVersion]:
        """Return every version of one trigger that is live or drains, the oldest first."""
        found = self._draining_of(trigger_id)
        live, ramp = self.active.get(trigger_id), self.ramps.get(trigger_id)
        if live is not None:
            found.append(live)
        if ramp is not None:
            found.append(ramp.stable)
        return sorted(found, key=lambda version: version.version)

    def ramping(self) -> list[BindingVersion]:
        """Return both versions of every ramp."""
        return [version for ramp in self.ramps.values() for version in ramp.versions]

    def share(self, binding: BindingVersion) -> float:
        """Return the share (0 to 1) of its trigger's new deliveries that a version takes now."""
        return share_of(binding, self.ramps)

    def for_queued(self, trigger_id: str, version: int) -> BindingVersion | None:
        """
        Choose the version that deliveries of a version run on: its own; when that may begin nothing more, the newest.

        :return: None when there is none: the trigger is gone, and so is that version, or it is closed.
        """
        own = self.get(trigger_id, version)
        if own is not None and not own.is_closed:
            return own
        live = self.active.get(trigger_id)
        if live is not None or own is not None:
            return live
        newest = self.newest(trigger_id)
        return None if newest is None or newest.is_closed else newest

    def for_retry(self, trigger_id: str, own: BindingVersion | None) -> BindingVersion | None:
        """
        Choose the version that a retry runs on.

        :param own: the version it ran on before, or None when that has ended.
        :return: the newest; its own when pinned, when the trigger is gone, or while it is one of a ramp's two; None
            when there is none to run on.
        """
        live, ramp = self.active.get(trigger_id), self.ramps.get(trigger_id)
        if (
            own is not None
            and not own.is_closed
            and (live is None or live.spec.retry.version == "pinned" or (ramp is not None and own in ramp.versions))
        ):
            return own
        newest = self.newest(trigger_id)
        return None if newest is None or (live is None and newest.is_closed) else newest

    def adopt(
        self,
        active: Mapping[str, BindingVersion],
        replaced: Collection[BindingVersion],
        now: float,
        ramps: Mapping[str, Ramp] = NO_RAMPS,
        *,
        by_id: dict[str, BindingVersion] | None = None,
        are_active: bool = False,
    ) -> None:
        """
        Adopt the bindings of a new generation, in one step that cannot fail.

        :param replaced: live versions that are not in it: they drain from now on (seconds, Unix).
        :param ramps: by trigger id, all that run from now on; each one's fresh version is in ``active``.
        :param by_id: those in ``replaced`` by trigger id, of two of one trigger the later, where that is made already;
            the registry's own from now on.
        :param are_active: every version in ``active`` has that stage already; else each is looked at.
        """
        self.check_replaced()  # of the previous adopt, if anything is left
        left = self._left_behind(active, ramps)
        previous = (*replaced, *left)
        for binding in () if are_active else [each for each in active.values() if each.stage is not Stage.ACTIVE]:
            binding.become(Stage.ACTIVE)
        for ramp in ramps.values():
            ramp.stable.become(Stage.ACTIVE)  # at a start it was revived
        self.active = active
        self.ramps = dict(ramps)  # a copy: thousands may end one by one
        for binding in [each for drain in self._draining.values() for each in drain.values() if each.in_flight <= 0]:
            self.check(binding)  # a trigger that came back no longer needs its last version's waiting retries there
        drain_all(previous, self, now)
        if by_id is None:
            by_id = {binding.id: binding for binding in replaced}
        for binding in left:
            by_id[binding.id] = binding
        self._replaced_last = by_id
        if len(self._replaced_last) < len(previous):  # both versions of a ramp
            for binding in previous:
                if self._replaced_last[binding.id] is not binding:
                    self._enter(binding)
        self._replaced.extend(previous)
        if len(previous) <= SLICE:
            self.check_replaced()

    @property
    def has_replaced(self) -> bool:
        """Whether the last adopt has left something to `check_replaced`."""
        return bool(self._replaced)

    def check_replaced(self, limit: int | None = None) -> bool:
        """
        End the versions that the last adopt replaced, and that nothing needs; of thousands an adopt leaves that.

        :param limit: how many to look at; None for all.
        :return: whether some are left.
        """
        replaced, last = self._replaced, self._replaced_last
        for _ in range(len(replaced) if limit is None else min(limit, len(replaced))):
            binding = replaced.popleft()
            self.check(binding)
            if last.get(binding.id) is binding:  # it still drains
                del last[binding.id]
                self._enter(binding)
        return bool(replaced)

    def _left_behind(self, active: Mapping[str, BindingVersion], ramps: Mapping[str, Ramp]) -> list[BindingVersion]:
        """Return ramping versions missing from the new bindings; they must drain."""
        kept = {ramp.stable for ramp in ramps.values()}
        return [each for each in self.ramping() if each not in kept and active.get(each.id) is not each]

    def end_ramp(
        self, trigger_id: str, winner: BindingVersion, active: Mapping[str, BindingVersion], now: float
    ) -> None:
        """
        Route all deliveries of a trigger to one of its ramp's versions, in one step that cannot fail.

        :param active: the live bindings from now on: as before, and ``winner`` for the trigger.
        :param now: seconds, Unix: the other version drains from then on.
        """
        ramp = self.ramps[trigger_id]
        self.active = active
        del self.ramps[trigger_id]
        for version in ramp.versions:
            if version is not winner:
                self.drain(version, now)

    def drain(self, binding: BindingVersion, now: float) -> None:
        """Drain a version: let it finish its deliveries, then end it."""
        binding.drain(self, now)
        self._enter(binding)
        self.check(binding)

    def _enter(self, binding: BindingVersion) -> None:
        """Keep a version that drains."""
        self._draining.setdefault(binding.id, {})[binding.version] = binding

    def _drop(self, binding: BindingVersion) -> bool:
        """Remove it; return whether it was kept."""
        if self._replaced_last.get(binding.id) is binding:
            del self._replaced_last[binding.id]
            return True
        versions = self._draining.get(binding.id, {})
        if versions.pop(binding.version, None) is None:
            return False
        if not versions:
            del self._draining[binding.id]
        return True

    def _draining_of(self, trigger_id: str) -> list[BindingVersion]:
        """Return the draining versions of one trigger."""
        found = list(self._draining.get(trigger_id, {}).values())
        replaced = self._replaced_last.get(trigger_id)
        return found if replaced is None else [*found, replaced]

    def check(self, binding: BindingVersion) -> None:
        """End a draining version if nothing needs it any more."""
        if binding.state != DRAINING or binding.in_flight > 0:
            return
        if (
            binding.id not in self.active
            and not binding.is_closed
            and self.waiting[binding.id]
            and self.newest(binding.id) is binding
        ):
            return  # the trigger is gone; its waiting retries have nowhere else to run
        self.terminate(binding)

    def terminate(self, binding: BindingVersion) -> None:
        """End a draining version: drop it, release its destination, emit `VersionEnded`."""
        if not self._drop(binding):
            return
        binding.become(Stage.TERMINATED)
        binding.registry = None
        destination, binding.destination = binding.destination, None
        if destination is not None:
            destination.release()
        is_last = self.newest(binding.id) is None
        self._lifecycle.emit(VersionEnded(binding.id, binding.version, binding.key, binding.spec.path, is_last))

    def retry_waits(self, trigger_id: str) -> None:
        """Count one more waiting delivery of a trigger."""
        self.waiting[trigger_id] += 1

    def retries_end(self, trigger_id: str, count: int | None) -> None:
        """Count waiting deliveries less: their time came, or they were given up; None for all of the trigger's."""
        self._wait_less(trigger_id, self.waiting[trigger_id] if count is None else count)

    def _wait_less(self, trigger_id: str, count: int) -> None:
        self.waiting[trigger_id] -= count
        if self.waiting[trigger_id] <= 0:
            del self.waiting[trigger_id]
            if trigger_id not in self.active:
                newest = self.newest(trigger_id)
                if newest is not None:
                    self.check(newest)


Values = dict[tuple[str, ...], float]


def add_version_gauges(metrics: Metrics, registry: Registry) -> None:
    """Add the gauges of the versions in ``registry``, which are read at each scrape."""
    metrics.gauge(
        "harn_binding_in_flight",
        "Leases held on each binding version.",
        lambda: {(binding.key, binding.state): float(binding.in_flight) for binding in registry},
        ("binding_key", "state"),
    )
    metrics.gauge(
        "harn_binding_share",
        "Share (0 to 1) of new deliveries that each version of a ramping trigger takes.",
        lambda: {(binding.key,): registry.share(binding) for binding in registry.ramping()},
        ("binding_key",),
    )
    metrics.gauge(
        "harn_binding_attempts",
        "Attempts that ended on each version of a ramping trigger, since the server's start.",
        lambda: _attempts(metrics, registry),
        ("binding_key", "outcome"),
    )
    metrics.gauge(
        "harn_trigger_inflight",
        "Leases held on each trigger.",
        lambda: _in_flight_by_trigger(registry),
        ("trigger_id",),
    )
    metrics.gauge(
        "harn_retries_waiting", "Deliveries that wait for a retry.", lambda: float(sum(registry.waiting.values()))
    )


def _in_flight_by_trigger(registry: Registry) -> Values:
    counts: Counter[tuple[str, ...]] = Counter()
    for binding in registry:
        counts[(binding.id,)] += binding.in_flight
    return {key: float(count) for key, count in counts.items()}


def _attempts(metrics: Metrics, registry: Registry) -> Values:
    counts: Values = {}
    for binding in registry.ramping():
        found = metrics.versions.get(binding.key, NO_COUNTS)
        counts[(binding.key, "failed")] = float(found.attempts_failed)
        counts[(binding.key, "succeeded")] = float(found.attempted - found.attempts_failed)
    return counts
