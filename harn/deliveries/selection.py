"""
Which deliveries: by state, trigger, kind, age and an expression over each one; and which of them may be changed.

Pure. `refusal` says of each operation in which states a delivery may be replayed, cancelled or discarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jmespath
from attrs import evolve, field, frozen
from jmespath.exceptions import JMESPathError

from harn.deliveries.redaction import event_document
from harn.manifest.vocabulary import fault_of_expression
from harn.model.delivery import CANCELLED, DISCARDED, DONE, REPLAYED, SKIPPED, State
from harn.model.references import binding_key
from harn.store.deliveries import DeliveryFilter, ListedDelivery
from harn.store.holds import Holds
from harn.store.jobs import CANCEL, DISCARD, REPLAY
from harn.triggers.matching import is_truthy

EVENT = "event"
MEMBERS = (EVENT, "binding", "trigger", "state", "attempts", "reason", "error_class", "age_seconds")
"""The names that an expression has."""
_WHOLE = ("current", "identity", "value_projection")
"""Kinds of JMESPath nodes that may read anything without naming it."""
ALLOWED: Mapping[str, frozenset[State]] = {
    REPLAY: frozenset((DONE, SKIPPED, *(state for state in State if state.may_become(REPLAYED)))),
    CANCEL: frozenset(state for state in State if state.may_become(SKIPPED)),
    DISCARD: frozenset(state for state in State if state.may_become(DISCARDED)),
}
"""For each operation the states in which a delivery must be."""
PAST = {REPLAY: "replayed", CANCEL: "cancelled", DISCARD: "discarded"}
"""What a delivery is after an operation, for messages and counts."""


class NotEvaluated(Exception):
    """An expression cannot be evaluated on a delivery, for example since it calls a function on a missing value."""


@frozen
class Where:
    """
    A compiled expression.

    :ivar needs_event: whether it reads the event; then each delivery's bytes have to be read.
    """

    text: str
    needs_event: bool
    _compiled: Any = field(repr=False)

    def holds(self, delivery: ListedDelivery, now: float) -> bool:
        """
        Return whether the expression is true of a delivery, as JMESPath has it: not null, false, or empty.

        :param now: seconds, Unix.
        :raises NotEvaluated: it cannot be evaluated.
        """
        try:
            return is_truthy(self._compiled.search(self._document(delivery, now)))
        except (JMESPathError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise NotEvaluated(str(error).partition("\n")[0]) from error

    def _document(self, delivery: ListedDelivery, now: float) -> Mapping[str, Any]:
        return {
            EVENT: event_document(delivery) if self.needs_event else None,
            "binding": binding_key(delivery.trigger_id, delivery.version),
            "trigger": delivery.trigger_id,
            "state": delivery.state.value,
            "attempts": delivery.attempts,
            "reason": delivery.reason,
            "error_class": delivery.error_class,
            "age_seconds": max(0.0, now - delivery.received_at),
        }


@lru_cache(maxsize=256)
def compile_where(text: str) -> Where:
    """
    Compile an expression.

    :raises ValueError: it is not JMESPath, calls an unknown function, or names nothing that a delivery has.
    """
    fault = fault_of_expression(text)
    if fault is not None:
        raise ValueError(f"where: must be a JMESPath expression over {', '.join(MEMBERS)}, got {text!r}: {fault}")
    compiled = jmespath.compile(text)
    names = set(_names(compiled.parsed))
    if names.isdisjoint((*MEMBERS, *_WHOLE)):
        raise ValueError(f"where: must name one of {', '.join(MEMBERS)}, got {text!r}, which names none")
    return Where(text, not names.isdisjoint((EVENT, *_WHOLE)), compiled)


def _names(tree: Any) -> list[str]:
    """Return the names of all fields in an expression, and of its nodes that read without a name."""
    found, nodes = [], [tree]
    while nodes:
        node = nodes.pop()
        if node["type"] == "field":
            found.append(node["value"])
        elif node["type"] in _WHOLE:
            found.append(node["type"])
        nodes.extend(child for child in node["children"] if isinstance(child, dict))
    return found


@frozen(kw_only=True)
class Selection:
    """
    Which deliveries are meant: all that the filter allows and of which the expression, if any, is true.

    :ivar chosen: by what the store has indices for.
    """

    chosen: DeliveryFilter
    where: Where | None = None

    @classmethod
    def of(
        cls,
        now: float,
        *,
        states: frozenset[State] = frozenset(),
        trigger: str | None = None,
        kind: str | None = None,
        since: float | None = None,
        where: str | None = None,
    ) -> Selection:
        """
        Return a selection.

        :param now: seconds, Unix.
        :param since: seconds before ``now``: accepted in that time.
        :raises ValueError: see `compile_where`.
        """
        return cls(
            chosen=DeliveryFilter(
                states=states, trigger=trigger, kind=kind, since=None if since is None else now - since
            ),
            where=None if where is None else compile_where(where),
        )

    def held(self, holds: Holds) -> Selection:
        """Return the same selection while these triggers are held."""
        return evolve(self, chosen=evolve(self.chosen, holds=holds))


def read_states(text: str) -> frozenset[State]:
    """
    Read the names of states, with commas between them.

    :raises ValueError: one is not the name of a state.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in tuple(State)]
    if wrong:
        raise ValueError(f"state: must be one or more of {', '.join(State)}, got {wrong[0]!r}")
    return frozenset(map(State, names))


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
