"""Gauges of triggers and of the store's disk, read at each scrape from what is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harn.clocks import WallTime
from harn.observability.metrics import GaugeValue, Metrics
from harn.statistics.backlogs import Backlogs
from harn.statistics.disk import DiskWatch

TRIGGER = ("trigger_id",)

Values = dict[tuple[str, ...], float]


def add_gauges(metrics: Metrics, wall: WallTime, backlogs: Backlogs) -> None:
    """Add the gauges of triggers; each trigger has its series, at 0, from the moment that it is served."""

    def by_trigger(values: Mapping[str, float]) -> Values:
        return {(trigger_id,): float(values.get(trigger_id, 0.0)) for trigger_id in metrics.triggers}

    def dead() -> Values:
        # Those of triggers that are gone can still be replayed or discarded.
        of_all: Values = {(trigger_id,): float(count) for trigger_id, count in backlogs.dead.items() if count}
        return {**by_trigger({}), **of_all}

    def age(name: str) -> Callable[[], Values]:
        def read() -> Values:
            now = wall.seconds()
            since = {trigger_id: getattr(each, name) for trigger_id, each in backlogs.oldest.items()}
            return by_trigger({key: max(0.0, now - at) for key, at in since.items() if at is not None})

        return read

    metrics.gauge("harn_dead_letters", "Dead letters now.", dead, TRIGGER)
    metrics.gauge(
        "harn_oldest_ready_age_seconds",
        "Time since the oldest delivery that does not run, and is not to wait for a retry, was due; a pause or an open"
        " circuit does not end it; 0 for none.",
        age("oldest_ready"),
        TRIGGER,
    )
    metrics.gauge(
        "harn_oldest_waiting_age_seconds",
        "Time since the oldest delivery that waits for a retry was received; 0 for none.",
        age("oldest_waiting"),
        TRIGGER,
    )
    metrics.gauge("harn_trigger_running", "Handlers that run now.", lambda: by_trigger(backlogs.running_now()), TRIGGER)
    metrics.gauge(
        "harn_trigger_waiting",
        "Deliveries that wait for a due time, or for the end of a pause or an open circuit.",
        lambda: by_trigger(backlogs.waiting_now()),
        TRIGGER,
    )


def add_disk_gauges(metrics: Metrics, disk: DiskWatch) -> None:
    """Add the gauges of the store's files and their disk; without a series before they are measured."""

    def store() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.store)}

    def free() -> GaugeValue:
        return {} if disk.use is None else {(): float(disk.use.free)}

    metrics.gauge("harn_store_bytes", "Size of the store's files.", store)
    metrics.gauge("harn_disk_free_bytes", "Free space on the store's disk.", free)
