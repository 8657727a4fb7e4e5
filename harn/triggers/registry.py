"""
The registry of all binding versions that are live or draining, with their gauges.

The registry outlives generations. A reload changes it in one synchronous step, `Registry.adopt`; it also changes when a
draining version or a ramp ends.
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
"""Versions ended in one turn of the reactor, in some 2 ms. If an adopt replaces more, they are ended in later turns."""


class Registry:
    """
    Binding versions by trigger id and number.

    :ivar active: the newest version of each trigger of the live manifest, by trigger id. `adopt` and `end_ramp` assign
        a new mapping.
    :ivar ramps: the current ramps by trigger id. The fresh version of a ramp is in ``active`` too, the stable one is
        not.
    :ivar waiting: the number of deliveries that wait for the time of a retry, by trigger id.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self.active: Mapping[str, BindingVersion] = {}
        self.ramps: dict[str, Ramp] = {}
        self._draining: dict[str, dict[int, BindingVersion]] = {}
        self._replaced_last: dict[str, BindingVersion] = {}  # replaced by the last adopt; these drain, too
        self.waiting: Counter[str] = Counter()
        self._replaced: deque[BindingVersion] = deque()

    def __iter__(self) -> Iterator[BindingVersion]:
        """Yield the versions that `all` returns."""
        return iter(self.all())

    def all(self) -> list[BindingVersion]:
        """Return the newest version of each live trigger, then the stable versions of ramps, then those that drain."""
        return [*self.active.values(), *(ramp.stable for ramp in self.ramps.values()), *self.draining()]

    def draining(self) -> list[BindingVersion]:
        """Return every draining version, in the order in which the drains began."""
        found = [version for versions in self._draining.values() for version in versions.values()]
        found += self._replaced_last.values()
        return sorted(found, key=lambda version: version.draining_since or 0.0)

    def get(self, trigger_id: str, version: int) -> BindingVersion | None:
        """Return a live or draining version by its number; None if there is none."""
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
        """
        Return the newest version of a trigger; None if there is none.

        For a removed trigger, this is the newest draining version that is not closed; if all are closed, the newest.
        """
        live = self.active.get(trigger_id)
        if live is not None:
            return live
        draining = self._draining_of(trigger_id)
        # A closed version only completes its running attempts, for example after a ramp that was aborted.
        return max(draining, key=lambda version: (not version.is_closed, version.version), default=None)

    def versions(self, trigger_id: str) -> list[BindingVersion]:
        """Return every live or draining version of one trigger, by ascending number."""
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
        """Return the share (0 to 1) of the trigger's new deliveries that a version takes now."""
        return share_of(binding, self.ramps)

    def for_queued(self, trigger_id: str, version: int) -> BindingVersion | None:
        """
        Return the version on which a queued delivery runs.

        :param version: the number of the version that the delivery was accepted for.
        :return: that version; if it has ended or is closed, the newest; None if no version can run the delivery.
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
        Return the version on which a retry runs.

        :param own: the version of the previous attempt; None if that has ended.
        :return: ``own`` if it is not closed and the trigger was removed, or its retries are pinned, or ``own`` is one
            of the two versions of a ramp; else the newest version; None if no version can run the retry.
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

        :param active: the newest version of each trigger of the new generation, by trigger id.
        :param replaced: live versions that are not in the new generation: they begin to drain.
        :param now: the time at which these drains begin (seconds, Unix).
        :param ramps: all current ramps by trigger id; the fresh version of each is in ``active``.
        :param by_id: the versions in ``replaced`` by trigger id, if the caller has that dict already; of two versions
            of one trigger, the later. The registry keeps and changes this dict.
        :param are_active: whether every version in ``active`` has the stage `Stage.ACTIVE` already; if False, each is
            checked.
        """
        self.check_replaced()  # those of the previous adopt, if any are left
        left = self._left_behind(active, ramps)
        previous = (*replaced, *left)
        for binding in () if are_active else [each for each in active.values() if each.stage is not Stage.ACTIVE]:
            binding.become(Stage.ACTIVE)
        for ramp in ramps.values():
            ramp.stable.become(Stage.ACTIVE)  # when the server starts, this version was just made
        self.active = active
        self.ramps = dict(ramps)  # a copy: thousands may end one by one
        for binding in [each for drain in self._draining.values() for each in drain.values() if each.in_flight <= 0]:
            self.check(binding)  # if its trigger was added again, the retries that wait run on the new version
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
        """Return whether `check_replaced` has versions of the last adopt to check."""
        return bool(self._replaced)

    def check_replaced(self, limit: int | None = None) -> bool:
        """
        End those versions replaced by the last adopt that `check` allows to end.

        An adopt that replaces more than `SLICE` versions leaves this to later calls.

        :param limit: the number of versions to check; None for all.
        :return: whether some versions are still to be checked.
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
        """Return the versions of current ramps that the new generation does not have; they must drain."""
        kept = {ramp.stable for ramp in ramps.values()}
        return [each for each in self.ramping() if each not in kept and active.get(each.id) is not each]

    def end_ramp(
        self, trigger_id: str, winner: BindingVersion, active: Mapping[str, BindingVersion], now: float
    ) -> None:
        """
        End a ramp, in one step that cannot fail: one of its versions takes all new deliveries of the trigger.

        :param winner: that version; the other one begins to drain.
        :param active: the new value of `active`: as before, with ``winner`` for the trigger.
        :param now: the time at which the drain begins (seconds, Unix).
        """
        ramp = self.ramps[trigger_id]
        self.active = active
        del self.ramps[trigger_id]
        for version in ramp.versions:
            if version is not winner:
                self.drain(version, now)

    def drain(self, binding: BindingVersion, now: float) -> None:
        """Drain a version: it completes its deliveries, then ends."""
        binding.drain(self, now)
        self._enter(binding)
        self.check(binding)

    def _enter(self, binding: BindingVersion) -> None:
        """Add a version to those that drain."""
        self._draining.setdefault(binding.id, {})[binding.version] = binding

    def _drop(self, binding: BindingVersion) -> bool:
        """Remove a version from those that drain; return whether it was one of them."""
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
        """End a draining version if it has no leases and no waiting retry can run on it alone."""
        if binding.state != DRAINING or binding.in_flight > 0:
            return
        if (
            binding.id not in self.active
            and not binding.is_closed
            and self.waiting[binding.id]
            and self.newest(binding.id) is binding
        ):
            return  # the trigger was removed, and its waiting retries can run on this version alone
        self.terminate(binding)

    def terminate(self, binding: BindingVersion) -> None:
        """End a draining version: remove it, release its destination, emit `VersionEnded`."""
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
        """Add one to the count of the trigger's waiting deliveries."""
        self.waiting[trigger_id] += 1

    def retries_end(self, trigger_id: str, count: int | None) -> None:
        """
        Remove from the count of the trigger's waiting deliveries those that became due or were dead-lettered.

        :param count: their number; None for all of the trigger's.
        """
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
    """Add the gauges of binding versions; each scrape reads them from ``registry``."""
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
