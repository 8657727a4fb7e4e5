"""The model of a whole store: each method answers at once, or raises; nothing is durable and nothing waits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harn.model.delivery import Acceptance, Claim, DeadLetter, Settlement
from harn.store.checkpoints import encode_checkpoints
from harn.store.event_log import VIEWS, Record, encode_record
from harn.store.recovery import LAPSE
from harn.store.retention import RetentionPolicy
from tests.store.model.definitions import DefinitionTables
from tests.store.model.records import Records
from tests.store.model.tables import DeliveryTables


class ModelStore:
    """
    The promises of `harn.store.interfaces.IStore`, without Deferreds.

    Methods that are not written out are those of the tables, under the same name.

    :param wall: gives the time of day.
    """

    def __init__(self, wall: Any) -> None:
        self.incarnation = 0
        self._wall = wall
        self._deliveries = DeliveryTables()
        self._definitions = DefinitionTables()
        self._records = Records()
        self._seen: dict[int, float] = {}
        self._seen_at_start: dict[int, float] = {}
        self._running: dict[int, set[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._deliveries if hasattr(self._deliveries, name) else self._definitions, name)

    def open(self) -> None:
        self.incarnation += 1
        self._seen_at_start = dict(self._seen)
        self._seen[self.incarnation] = self._wall.seconds()

    def close(self) -> None:
        self._running.pop(self.incarnation, None)

    def accept(self, acceptance: Acceptance) -> tuple[int | None, ...]:
        return self._deliveries.accept(acceptance, self.incarnation, self._wall.seconds())

    def claim(self, scope: str, key: str, expires_at: float) -> bool:
        return self._deliveries.claim(Claim(scope=scope, key=key, expires_at=expires_at), self._wall.seconds())

    def settle(self, settlement: Settlement) -> None:
        self._deliveries.settle(settlement, self._wall.seconds())

    def ready(self, trigger_id: str, version: int, excluding: Collection[int], limit: int, max_bytes: int) -> Any:
        return self._deliveries.ready(self.incarnation, trigger_id, version, excluding, limit, max_bytes)

    def due(self, now: float, limit: int) -> Any:
        return self._deliveries.due(self.incarnation, now, limit)

    def dead_letter(self, trigger_id: str, version: int | None, dead: DeadLetter, excluding: Any, **which: bool) -> Any:
        return self._deliveries.dead_letter(self._wall.seconds(), trigger_id, version, dead, excluding, **which)

    def next_due(self, after: float) -> float | None:
        return self._deliveries.next_due(self.incarnation, after)

    def skip(self, delivery_id: int, reason: str) -> Any:
        return self._deliveries.skip(self.incarnation, self._wall.seconds(), delivery_id, reason)

    def redrive(self, trigger_id: str, version: int, to_version: int, since: float) -> int:
        return self._deliveries.redrive(self.incarnation, trigger_id, version, to_version, since)

    def states(self, delivery_ids: Collection[int]) -> Mapping[int, str]:
        return self._deliveries.states(self.incarnation, delivery_ids)

    def begins(self, delivery_id: int) -> None:
        self._running.setdefault(self.incarnation, set()).add(delivery_id)

    def ended(self, delivery_id: int) -> None:
        self._running.setdefault(self.incarnation, set()).discard(delivery_id)

    def recover(self, now: float, limit: int, received_before: float | None = None, leaving: int | None = None) -> Any:
        return self._deliveries.recover(
            self.incarnation, now, limit, received_before, self._living(now, leaving), self._running
        )

    def unfinished(self, older_than: float, limit: int, leaving: int | None = None) -> Any:
        others = self._living(self._wall.seconds(), leaving)
        return self._deliveries.unfinished((self.incarnation, *others), older_than, limit)

    def count_unfinished(self, older_than: float) -> int:
        others = self._living(self._wall.seconds(), None)
        return self._deliveries.count_unfinished((self.incarnation, *others), older_than)

    def append(self, topic: str, kind: str, payload: Mapping[str, Any]) -> int:
        return self._records.append(topic, kind, *encode_record(payload, {}), self._wall.seconds())

    def read(self, topic: str, after: int, limit: int) -> Sequence[Record]:
        return [record for record in self._topic(topic) if record.number > after][:limit]

    def latest(self, topic: str) -> int:
        return max((record.number for record in self._topic(topic)), default=0)

    def topics(self) -> Sequence[str]:
        return sorted(self._records.topics().union(view for view in VIEWS if self._topic(view)))

    def adopted(self, number: int, at: float, checkpoints: Mapping[str, Any]) -> None:
        self._definitions.adopted(number, at, encode_checkpoints(checkpoints))

    def put(self, name: str, value: Any) -> None:
        self._definitions.keep(encode_checkpoints({name: value}))

    def trim(self, policy: RetentionPolicy, now: float, limit: int) -> int:
        removed = self._deliveries.trim_claims(now, limit)
        removed += self._records.trim(now - policy.events, limit - removed)
        removed += self._deliveries.trim_finished(policy, now, limit - removed)
        if removed < limit:
            removed += self._trim_servers(now - policy.events)
        return removed or self._definitions.trim(policy, limit, self._deliveries.has_unfinished)

    def _living(self, now: float, leaving: int | None) -> set[int]:
        found = {
            incarnation
            for incarnation, seen_at in self._seen.items()
            if now - LAPSE < seen_at <= now + LAPSE and self._seen_at_start.get(incarnation) != seen_at
        }
        return (found | (set() if leaving is None else {leaving})) - {self.incarnation}

    def _topic(self, topic: str) -> Sequence[Record]:
        return self._deliveries.records(topic) if topic in VIEWS else self._records.of(topic)

    def _trim_servers(self, before: float) -> int:
        silent = [each for each, seen_at in self._seen.items() if seen_at < before and each != self.incarnation]
        for incarnation in silent:
            del self._seen[incarnation]
        return len(silent)
