"""Synthetic events: made for one trigger, accepted like any other event, and awaited until their delivery has ended."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, structs
from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime

from harn.clocks import WallTime
from harn.connectors.interfaces import IExamples, NormalizedEvent
from harn.dispatch.decisions import Arrival
from harn.dispatch.dispatcher import Dispatcher
from harn.dispatch.intake import Intake, Taken
from harn.dispatch.settler import Outcome
from harn.errors import RouteUnknown
from harn.manifest.model import TriggerSpec
from harn.model.display import list_some
from harn.model.event import UNSIGNED
from harn.triggers.binding import BindingVersion
from harn.triggers.matching import matches
from harn.triggers.registry import Registry

PATIENCE = 30.0
"""Seconds that an outcome is awaited after the time-out of the handler."""
KINDS = {"webhook": "webhook", "a2a-push": "a2a.task.received", "cron": "tick", "poll": "poll"}
"""The kind of a synthetic event by kind of trigger, for a trigger that names no kinds of events."""


class Sent(Struct, frozen=True, kw_only=True):
    """
    The outcome of a synthetic event.

    :ivar binding: the key of the version that was to accept it.
    :ivar outcome: how its delivery ended; None if the event was not accepted, is a dead letter from the start, or its
        delivery takes too long.
    """

    binding: BindingVersion
    taken: Taken
    outcome: Outcome | None = None


class SyntheticEvents:
    """
    Makes synthetic events, and sends them to triggers.

    :param examples: the examples of events of the live triggers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        registry: Registry,
        intake: Intake,
        dispatcher: Dispatcher,
        examples: IExamples,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._registry = registry
        self._intake = intake
        self._dispatcher = dispatcher
        self._examples = examples

    async def send(self, trigger_id: str, payload: Any, kind: str | None = None) -> Sent:
        """
        Send a synthetic event to a trigger, and wait a limited time for the end of its delivery.

        :param payload: the body of the event, any JSON value; None for the provider's example.
        :param kind: the kind of the event; None for one that the trigger accepts.
        :raises RouteUnknown: there is no such trigger.
        """
        now = self._wall.seconds()
        dedupe_key = f"fire:{trigger_id}:{now}"
        binding = self._version(trigger_id, dedupe_key)
        headers = {"x-harn-binding-id": trigger_id, "x-harn-synthetic": "true"}
        event = self._made_up(binding.spec, payload, kind, dedupe_key)
        arrival = Arrival(headers=headers, body=event.body or b"", received_at=now)
        binding.lease()
        try:
            taken = await self._intake.take(binding, arrival, [event])
        finally:
            binding.release()
        if not taken.event_ids or taken.dead:
            return Sent(binding=binding, taken=taken)
        watching = self._dispatcher.watch(taken.event_ids[0])
        try:
            outcome = await watching.addTimeout(binding.spec.timeout + PATIENCE, self._clock)
        except TimeoutError:
            return Sent(binding=binding, taken=taken)
        return Sent(binding=binding, taken=taken, outcome=outcome)

    def _version(self, trigger_id: str, dedupe_key: str) -> BindingVersion:
        binding = self._registry.active.get(trigger_id)
        if binding is None:
            known = list_some(sorted(self._registry.active))
            raise RouteUnknown(f"unknown manifest binding {trigger_id!r}; the live generation has: {known}")
        ramp = self._registry.ramps.get(trigger_id)
        return binding if ramp is None else ramp.choose(dedupe_key)

    def _made_up(self, spec: TriggerSpec, payload: Any, kind: str | None, dedupe_key: str) -> NormalizedEvent:
        """Return an event; the provider's example if no payload or kind is given and the trigger accepts its kind."""
        example = self._examples.example(spec.id) if payload is None else None
        if example is not None and (example.kind == kind if kind else matches(spec.events, example.kind)):
            made_up = {**example.payload, "synthetic": True}
            return structs.replace(example, dedupe_key=dedupe_key, payload=made_up, signature_status=UNSIGNED)
        return NormalizedEvent(
            kind=kind or synthetic_kind(spec),
            dedupe_key=dedupe_key,
            payload={"synthetic": True},
            lifted={name: [name] for name in payload} if isinstance(payload, dict) else {},
            body_format="none" if payload is None else "json",
            signature_status=UNSIGNED,
            body=b"" if payload is None else msgspec.json.encode(payload),
        )


def synthetic_kind(spec: TriggerSpec) -> str:
    """Return a kind of event that the trigger matches: its first pattern, or the usual kind for such a trigger."""
    if not spec.events:
        return KINDS.get(spec.kind, spec.kind)
    first = spec.events[0]
    return first.removesuffix("*") + "synthetic" if first.endswith(".*") else first
