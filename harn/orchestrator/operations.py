"""What an operator may ask of a running server, beside a reload; each answer is a JSON value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import evolve
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from harn.clocks import WallTime, rfc3339
from harn.connectors.model import NormalizedEvent
from harn.dispatch.dispatcher import Dispatcher, Outcome
from harn.dispatch.intake import Arrival, Intake
from harn.errors import RouteUnknown
from harn.history.recorded import describe_history
from harn.listener.interfaces import IOperations, RecordPage
from harn.manifest.model import TriggerSpec
from harn.model.delivery import DEAD, DONE
from harn.model.event import UNSIGNED
from harn.model.headers import redact
from harn.orchestrator.recovery import Recovery
from harn.orchestrator.state_file import describe_binding
from harn.reload.coordinator import Coordinator
from harn.store.event_log import OURS, Record, check_known
from harn.store.interfaces import IStore
from harn.triggers.binding import BindingVersion
from harn.triggers.counts import Counts
from harn.triggers.matching import matches
from harn.triggers.registry import Registry

RECENT = 20
"""Attempts that ``inspect`` shows."""
PATIENCE = 30.0
"""Seconds that ``fire`` waits for an outcome beyond the handler's own time-out."""
SYNTHETIC_KINDS = {"webhook": "webhook", "a2a-push": "a2a.task.received"}
"""Kind of a made-up event by kind of trigger, where the trigger names none."""


def describe_version(binding: BindingVersion, counts: Counts, share: float, waiting: int) -> dict[str, Any]:
    """Make one entry of ``GET /admin/bindings``; ``share`` (0 to 1) is of its trigger's new deliveries."""
    return {
        **describe_binding(binding, counts, share),
        "binding": binding.key,
        "path": binding.spec.path,
        "handler_name": binding.spec.handler,
        "queued_in_store": binding.stored,
        "waiting_retries": waiting,
        "draining_since": None if binding.draining_since is None else rfc3339(binding.draining_since),
        "fingerprint": binding.definition.fingerprint,
    }


def synthetic_kind(spec: TriggerSpec) -> str:
    """Name a kind that the trigger matches: its first pattern, or what its sort of trigger usually gets."""
    if not spec.events:
        return SYNTHETIC_KINDS.get(spec.kind, spec.kind)
    first = spec.events[0]
    return first.removesuffix("*") + "synthetic" if first.endswith(".*") else first


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """Describe how a fired event ended."""
    settlement = outcome.settlement
    status = "dispatched" if settlement.state == DONE else "dlq" if settlement.state == DEAD else "waiting"
    error = settlement.dead.error if settlement.dead is not None else None
    if error is None and settlement.attempt is not None:
        error = settlement.attempt.error
    return {
        "binding_id": outcome.delivery.binding.id,
        "binding_version": settlement.version,
        "event_id": outcome.delivery.event_id,
        "status": status,
        "replay_of_event_id": outcome.delivery.replay_of,
        "dlq_entry_id": outcome.delivery.event_id if settlement.state == DEAD else None,
        "result": None if settlement.result is None else msgspec.json.decode(settlement.result),
        "error": error,
    }


@implementer(IOperations)
class Operations:
    """The operations of one server."""

    def __init__(
        self,
        clock: IReactorTime,
        store: IStore,
        registry: Registry,
        intake: Intake,
        dispatcher: Dispatcher,
        coordinator: Coordinator,
        recovery: Recovery,
        snapshot: Any,
        wall: WallTime | None = None,
    ) -> None:
        """
        :param snapshot: gives what the state file says now.
        :param wall: for stamps; ``clock`` if None.
        """
        self._clock = clock
        self._wall: WallTime = wall or clock
        self._store = store
        self._registry = registry
        self._intake = intake
        self._dispatcher = dispatcher
        self._coordinator = coordinator
        self._recovery = recovery
        self._snapshot = snapshot

    def generations(self, limit: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `IOperations.generations`."""
        return Deferred.fromCoroutine(self._generations(limit))

    async def _generations(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return describe_history(await self._store.history(limit), self._coordinator.generation)

    def bindings(self) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See `IOperations.bindings`."""
        registry = self._registry
        return succeed(
            [
                describe_version(each, registry.counts.of(each.key), registry.share(each), registry.waiting[each.id])
                for each in registry
            ]
        )

    def events(self, topic: str, after: int, limit: int) -> Deferred[RecordPage]:
        """See `IOperations.events`."""
        return Deferred.fromCoroutine(self._events(topic, after, limit))

    async def _events(self, topic: str, after: int, limit: int) -> RecordPage:
        records = await self._store.read(topic, after, limit)
        if not records and topic not in OURS:
            check_known(topic, await self._store.topics())
        latest = await self._store.latest(topic)
        return RecordPage(topic=topic, records=[self._without_secrets(each) for each in records], latest=latest)

    def _without_secrets(self, record: Record) -> Record:
        """Hide the live generation's secrets where an event's headers hold them, under whatever name."""
        live = self._coordinator.current
        event = record.payload.get("event")
        if live is None or not isinstance(event, dict) or not isinstance(event.get("headers"), dict):
            return record
        headers = redact(event["headers"], live.inputs.known.include)
        return evolve(record, payload={**record.payload, "event": {**event, "headers": headers}})

    def inspect(self) -> Deferred[Mapping[str, Any]]:
        """See `IOperations.inspect`."""
        return Deferred.fromCoroutine(self._inspect())

    async def _inspect(self) -> Mapping[str, Any]:
        snapshot = self._snapshot()
        newest = await self._store.latest("trigger.outbox")
        recent = await self._store.read("trigger.outbox", max(0, newest - RECENT), RECENT)
        return {
            "triggers": snapshot["triggers"],
            "connectors": snapshot["connectors"],
            "activations": snapshot["activations"],
            "snapshot": {key: snapshot[key] for key in ("status", "bind", "generation", "digest", "last_reload")},
            "dispatcher": {
                "in_flight": len(self._dispatcher.in_progress),
                "queued": self._dispatcher.queued,
                "waiting_retries": sum(self._registry.waiting.values()),
            },
            "recent_dispatches": [
                {"kind": record.kind, "occurred_at_ms": int(record.occurred_at * 1000), **record.payload}
                for record in recent
            ],
        }

    def fire(self, trigger_id: str, payload: Any) -> Deferred[Mapping[str, Any]]:
        """See `IOperations.fire`."""
        return Deferred.fromCoroutine(self._fire(trigger_id, payload))

    async def _fire(self, trigger_id: str, payload: Any) -> Mapping[str, Any]:
        binding = self._registry.active.get(trigger_id)
        if binding is None:
            known = ", ".join(sorted(self._registry.active)[:10])
            raise RouteUnknown(f"unknown manifest binding {trigger_id!r}; the live generation has: {known}")
        now = self._wall.seconds()
        dedupe_key = f"fire:{trigger_id}:{now}"
        ramp = self._registry.ramps.get(trigger_id)
        if ramp is not None:
            binding = ramp.choose(dedupe_key)
        spec = binding.spec
        headers = {"x-harn-binding-id": trigger_id, "x-harn-synthetic": "true"}
        event = self._made_up(spec, payload, dedupe_key)
        arrival = Arrival(headers=headers, body=event.body or b"", received_at=now)
        binding.lease()
        try:
            taken = await self._intake.take(binding, arrival, [event])
        finally:
            binding.release()
        if not taken.event_ids:
            status = "duplicate_dropped" if taken.duplicates else "ignored"
            return {"binding_id": trigger_id, "binding_version": binding.version, "event_id": None, "status": status}
        if taken.dead:
            return {
                "binding_id": trigger_id,
                "binding_version": binding.version,
                "event_id": taken.event_ids[0],
                "status": "dlq",
            }
        watching = self._dispatcher.watch(taken.event_ids[0])
        try:
            return describe_outcome(await watching.addTimeout(spec.timeout + PATIENCE, self._clock))
        except TimeoutError:
            return {
                "binding_id": trigger_id,
                "binding_version": binding.version,
                "event_id": taken.event_ids[0],
                "status": "pending",
            }

    def _made_up(self, spec: TriggerSpec, payload: Any, dedupe_key: str) -> NormalizedEvent:
        """Make an event up: the provider's own example where nothing else is asked for, and the trigger takes it."""
        live = self._coordinator.current
        make = live.connectors[spec.id].value.example if live is not None and spec.id in live.connectors else None
        if payload is None and make is not None:
            example = make()
            if matches(spec.events, example.kind):
                made_up = {**example.payload, "synthetic": True}
                return evolve(example, dedupe_key=dedupe_key, payload=made_up, signature_status=UNSIGNED)
        return NormalizedEvent(
            kind=synthetic_kind(spec),
            dedupe_key=dedupe_key,
            payload={"synthetic": True},
            lifted={name: [name] for name in payload} if isinstance(payload, dict) else {},
            body_format="none" if payload is None else "json",
            signature_status=UNSIGNED,
            body=b"" if payload is None else msgspec.json.encode(payload),
        )

    def recover(self, older_than: float, dry_run: bool) -> Deferred[Mapping[str, Any]]:
        """See `IOperations.recover`."""
        return Deferred.fromCoroutine(self._recovery.on_request(older_than, dry_run=dry_run))
