"""What always holds of a server that reloads, whatever was done to it: nothing disagrees, and nothing leaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from harn.dispatch.delivery import Phase
from harn.dispatch.failure_log import FailureLog
from harn.reload.adopt import MOST_DRAINING
from harn.rollout import probation
from harn.rollout import ramps as ramping
from harn.rollout.model import Probation, why_failed
from harn.triggers.binding import ACTIVE
from harn.triggers.pool import Shared
from harn.triggers.routing import Route
from tests.reload.expected import Row
from tests.reload.world import World, interpreter_of

GRAIN = 1e-3
"""Seconds: less is lost where times of day are added up."""


def is_quiet(world: World) -> bool:
    """Return whether the store is there, and everything that waited for it is done."""
    store = world.store
    refill = world.dispatcher._refill
    rests = refill._rests_until > world.clock.seconds()
    return not (store.fail_reads or store.fail_writes or len(world.dispatcher._writes) or rests)


def one_generation_serves(world: World) -> None:
    """Check that coordinator, table and registry are of one generation, and that its bindings are complete."""
    current, table, registry = world.coordinator.current, world.table, world.registry
    assert current is not None
    assert table.generation == current.number == world.coordinator.generation
    assert table.tree == current.routes
    assert registry.active is current.bindings
    assert dict(registry.ramps) == dict(current.ramps)
    assert {route.binding.id: route.binding for route in table.tree.values()} == current.bindings
    for route in table.tree.values():
        assert route.ramp is current.ramps.get(route.binding.id), route
    for trigger_id, ramp in current.ramps.items():
        assert ramp.fresh is current.bindings[trigger_id], ramp
        assert ramp.stable.version < ramp.fresh.version, ramp
    in_force = [*current.bindings.values(), *(ramp.stable for ramp in current.ramps.values())]
    for binding in in_force:
        assert (binding.state, binding.is_closed, binding.is_cancelled) == (ACTIVE, False, False), binding
    assert not {*in_force} & {*registry.draining()}


def nothing_is_leaked(world: World, requests: Sequence[Route]) -> None:
    """Check that each pool holds exactly what generations, versions, requests and calls hold."""
    current = world.coordinator.current
    assert current is not None
    expected: Counter[Shared[Any]] = Counter(current.connectors.values())
    expected.update(route.receiver for route in requests)
    assert {*world.connections.pool} == {*current.connectors.values()}
    assert {shared: shared.holders for shared in expected} == expected
    for shared in expected:
        assert shared.value.gate.is_open == (shared in current.connectors.values())
    assert {shared.value.connector for shared in expected} == world.plugin.alive
    holders = Counter(interpreter_of(binding) for binding in world.registry)
    holders[current.interpreter] += 1
    for shared in world.resolution.pool:
        holders[shared] += shared.value.running
    assert holders == {shared: shared.holders for shared in world.resolution.pool}
    assert {shared.value for shared in holders} == world.interpreters.alive


def leases_are_deliveries(
    world: World, requests: Sequence[Route], rows: Mapping[str, Row], gone: Collection[str]
) -> None:
    """
    Check that requests, and deliveries that are ready or due, hold one lease each, and nothing else does.

    :param gone: triggers that were removed at some time: retries that no version was left for are not counted.
    """
    registry = world.registry
    for binding in registry:
        assert binding.in_flight >= 0, binding
        assert binding.destination is not None, binding
    for binding in registry.draining():
        waits = binding.id not in registry.active and registry.waiting[binding.id]
        assert binding.in_flight > 0 or waits, binding
    if not is_quiet(world):
        return
    held = sum(1 if route.ramp is None else 2 for route in requests)
    ready = {row.stored.delivery_id for row in rows.values() if row.stored.state == "ready"}
    assert sum(binding.in_flight for binding in registry) == held + len(ready)
    waiting = Counter(row.stored.trigger_id for row in rows.values() if row.stored.state == "waiting")
    for trigger_id in registry.active.keys() - gone:
        assert registry.waiting[trigger_id] == waiting[trigger_id], (trigger_id, registry.waiting, waiting)


def what_can_run_runs(world: World, rows: Mapping[str, Row]) -> None:
    """Check that each ready or due delivery runs, or waits in memory for a free place, once; and no other does."""
    running = [each.call.event_id for each in world.calls]
    assert len(set(running)) == len(running), running
    assert len(running) <= world.dispatcher.max_outstanding
    if not is_quiet(world):
        return
    now = world.clock.seconds()
    can_run = {
        event_id
        for event_id, row in rows.items()
        if row.stored.state == "ready" or (row.stored.state == "waiting" and row.due_at() < now - GRAIN)
    }
    queued = {
        delivery.event_id
        for queue in world.dispatcher._queues
        for delivery in queue.share.in_hand.values()
        if delivery.phase is Phase.QUEUED
    }
    assert can_run <= {*running} | queued, can_run - {*running} - queued
    assert not queued or len(running) == world.dispatcher.max_outstanding


def trials_are_of_what_serves(world: World) -> None:
    """Check that probation and ramps are the live generation's, are due in the future, and outlast a restart."""
    current, trials = world.coordinator.current, world.rollouts
    assert current is not None
    now, ramps, on_probation = world.clock.seconds(), trials.ramps, trials.probations.current
    assert {trigger_id: running.ramp for trigger_id, running in ramps._running.items()} == dict(current.ramps)
    for running in ramps._running.values():
        if running.is_ending:
            assert running in ramps._failed, running
            assert ramps._next_verdict > now - GRAIN, running
            continue
        assert running.next_at is None or running.next_at > now - GRAIN, running
        assert 0.0 <= running.ramp.share < 1.0, running
        assert why_failed(running.policy, running.attempts, running.failures) is None, running
        assert running.failures <= running.attempts, running
    for trigger_id, record in ramps._aborted.items():
        assert current.bindings[trigger_id].version == record.stable < record.fresh, record
    for trigger_id, binding in current.bindings.items():
        if binding.definition.fingerprint != current.definitions[trigger_id].fingerprint:
            assert trigger_id in ramps._aborted, binding
    if on_probation is not None:
        _look_at_probation(world, on_probation, now)
    if is_kept(world):
        kept = {
            name: msgspec.json.decode(value) for name, value in world.store.query("SELECT name, value FROM standing")
        }
        for name, value in ((ramping.NAME, ramps.record()), (probation.NAME, trials.probations.record())):
            assert kept.get(name) == msgspec.json.decode(msgspec.json.encode(value)), (kept, value)


def is_kept(world: World) -> bool:
    """Return whether what must outlast a restart is in the store; verdicts on ramps may come a second later."""
    keeper = world.rollouts.persister
    return not (keeper._writes or keeper._pausing is not None or world.rollouts.ramps._failed)


def _look_at_probation(world: World, terms: Probation, now: float) -> None:
    trial = world.rollouts.probations._active
    assert trial is not None
    assert terms.generation == world.coordinator.generation
    assert terms.fallback < terms.generation
    assert terms.failed(now - GRAIN, *trial.total) is None, trial
    assert trial.total == tuple(map(sum, zip((0, 0), *trial.tallies.values(), strict=True))), trial
    assert terms.lapsed(now - GRAIN) is None, terms
    assert not terms.is_passed(now - GRAIN), terms


def drains_are_bounded(world: World) -> None:
    """Check that each draining version is in one group, which moves it on in time; few generations drain at once."""
    groups = world.drains._groups
    grouped = Counter(binding for group in groups for binding in group.bindings.values())
    assert grouped == Counter(world.registry.draining())
    for group in groups:
        has_deadline = group.deadline is not None and group.deadline.active()
        assert has_deadline or all(binding.is_closed for binding in group.bindings.values()), group
    assert len({group.generation for group in groups if group.deadline is not None}) <= MOST_DRAINING, groups


def timers_are_known(world: World) -> None:
    """Check that each call that the clock will make is one that its owner can cancel."""
    trials, dispatcher = world.rollouts, world.dispatcher
    timers = [
        trials.probations._timer,
        trials.ramps._timer,
        dispatcher._wakeups._timer,
        world.server[FailureLog]._timer,
        *(group.deadline for group in world.drains._groups),
    ]
    known = [timer for timer in timers if timer is not None and timer.active()]
    pending = world.clock.getDelayedCalls()
    unknown = [timer for timer in pending if timer not in known]
    assert len(pending) == len(known) + len(unknown)
    away = (world.reverter.reverting is not None) + (trials.persister._pausing is not None) + len(dispatcher._writes)
    assert len(unknown) == away, unknown
