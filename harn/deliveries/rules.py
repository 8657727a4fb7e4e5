"""The states in which a delivery may be replayed, cancelled or discarded. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from harn.model.delivery import CANCELLED, DISCARDED, DONE, REPLAYED, SKIPPED, State
from harn.store.jobs import CANCEL, DISCARD, REPLAY
from harn.store.lists import ListedDelivery

ALLOWED: Mapping[str, frozenset[State]] = {
    REPLAY: frozenset((DONE, SKIPPED, *(state for state in State if state.may_become(REPLAYED)))),
    CANCEL: frozenset(state for state in State if state.may_become(SKIPPED)),
    DISCARD: frozenset(state for state in State if state.may_become(DISCARDED)),
}
"""For each operation the states in which a delivery must be."""
PAST = {REPLAY: "replayed", CANCEL: "cancelled", DISCARD: "discarded"}
"""What a delivery is after an operation, for messages and counts."""


def gone(trigger_id: str) -> str:
    """Return why nothing can be replayed of a trigger."""
    return f"its trigger {trigger_id} is not in the manifest any more; put it back, reload, and replay again"


def refusal(operation: str, delivery: ListedDelivery) -> str | None:
    """Return why an operation is not done with a delivery, by its state; None when it may be."""
    if delivery.state in ALLOWED[operation]:
        return None
    allowed = ", ".join(state for state in State if state in ALLOWED[operation])
    return f"it is {describe_state(delivery)}; only what is {allowed} can be {PAST[operation]}"


def describe_state(delivery: ListedDelivery) -> str:
    """Return the state of a delivery, with what it names."""
    state = delivery.state
    if state is SKIPPED:
        return f"{state} ({delivery.reason})" if delivery.reason else state
    return f"{state} as {delivery.replayed_as}" if state is State.REPLAYED and delivery.replayed_as else state


def is_cancelled(delivery: ListedDelivery) -> bool:
    """Return whether a delivery ended as one that an operator cancelled."""
    return delivery.state is SKIPPED and delivery.reason == CANCELLED
