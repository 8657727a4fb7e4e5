"""Workload of versions: how many of their deliveries run and wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from harn.dispatch.delivery import Delivery
from harn.model.delivery import Workload
from harn.triggers.binding import BindingVersion


def workload(
    bindings: Iterable[BindingVersion], running: Iterable[Delivery], queued: Iterable[Delivery]
) -> Mapping[BindingVersion, Workload]:
    """Count for each version what memory holds of it; and what the store alone holds."""
    runs = Counter(delivery.binding for delivery in running)
    waits = Counter(delivery.binding for delivery in queued)
    return {each: Workload(runs[each], waits[each] + max(0, each.stored)) for each in bindings}
