"""
JMESPath expressions over one delivery, with a bound on the size of their values.

``[@, @][]`` doubles a list, and thirty of them in sequence make a list too large for memory. All users who may read
deliveries may send an expression, so its growth is bounded before it is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any

import jmespath
from attrs import field, frozen
from jmespath.exceptions import JMESPathError, JMESPathTypeError

from harn.deliveries.describing import event_document
from harn.manifest.vocabulary import fault_of_expression
from harn.model.references import binding_key
from harn.store.deliveries import ListedDelivery
from harn.triggers.matching import is_truthy

EVENT = "event"
MEMBERS = (EVENT, "binding", "trigger", "state", "attempts", "reason", "error_class", "age_seconds")
"""The names that an expression may use."""
_WHOLE = ("current", "identity", "value_projection")
"""Kinds of JMESPath nodes that may read anything without naming it."""
MOST_GROWTH = 64
"""The most copies of its input that the value of an expression may contain."""
_CHOICES = frozenset(("and_expression", "or_expression", "not_expression", "comparator"))
_LISTS = frozenset(("multi_select_list", "multi_select_dict"))
LONGEST_REASON = 300
"""Characters of the reason why an expression cannot be evaluated."""


class NotEvaluated(Exception):
    """An expression cannot be evaluated on a delivery, for example since it calls a function on a missing value."""


@frozen
class Where:
    """
    A compiled expression.

    :ivar needs_event: whether it uses the event, so that the bytes of each delivery must be read.
    """

    text: str
    needs_event: bool
    _compiled: Any = field(repr=False)

    def holds(self, delivery: ListedDelivery, now: float) -> bool:
        """
        Return whether the expression is true of a delivery, as JMESPath defines it: not null, false, or empty.

        :param now: seconds, Unix.
        :raises NotEvaluated: it cannot be evaluated.
        """
        try:
            return is_truthy(self._compiled.search(self._document(delivery, now)))
        except (JMESPathError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise NotEvaluated(_why(error)) from error

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


def _why(error: Exception) -> str:
    """Return why an expression could not be evaluated, without values, which may be secret or large."""
    if isinstance(error, JMESPathTypeError):
        return f"{error.function_name}() needs {' or '.join(error.expected_types)}, got {error.actual_type}"
    return str(error).partition("\n")[0][:LONGEST_REASON]


@lru_cache(maxsize=256)
def compile_where(text: str) -> Where:
    """
    Compile an expression.

    :raises ValueError: it is not JMESPath, calls an unknown function, names nothing that a delivery has, or may make
        too many copies of it.
    """
    fault = fault_of_expression(text)
    if fault is not None:
        raise ValueError(f"where: must be a JMESPath expression over {', '.join(MEMBERS)}, got {text!r}: {fault}")
    compiled = jmespath.compile(text)
    names = set(_names(compiled.parsed))
    if names.isdisjoint((*MEMBERS, *_WHOLE)):
        raise ValueError(f"where: must name one of {', '.join(MEMBERS)}, got {text!r}, which names none")
    if growth_of(compiled.parsed) > MOST_GROWTH:
        raise ValueError(
            f"where: must not copy what it reads more than {MOST_GROWTH} times, got {text[:100]!r}; use fewer lists in"
            " brackets, one inside or after the other"
        )
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


def growth_of(tree: Any) -> int:
    """
    Return a bound of the copies of its input that the value of an expression holds.

    :param tree: ``jmespath.compile(...).parsed``; it may be nested deeper than Python calls may be.
    """
    nodes, inner = [tree], dict[int, list[int]]()
    for node in nodes:  # those above before those below
        nodes.extend(_children(node))
    for node in reversed(nodes):
        inner[id(node)] = [_growth(child, inner[id(child)]) for child in _children(node)]
    return _growth(tree, inner[id(tree)])


def _children(node: Any) -> list[Any]:
    return [child for child in node["children"] if isinstance(child, dict)]


def _growth(node: Any, inner: list[int]) -> int:
    """Return the bound of one node; ``inner``: those of its children."""
    kind = node["type"]
    if kind == "literal":
        return 0
    if kind in _LISTS:
        return sum(inner)
    if kind in _CHOICES:
        return max(inner)
    whole = prod(max(1, each) for each in inner)
    if kind != "function_expression":
        return whole
    whole = max(whole, sum(inner))  # `merge` keeps all of its arguments
    if node["value"] == "to_string":
        return 2 * whole  # it may put a backslash before each character
    if node["value"] == "join" and inner and inner[0]:
        return whole * (MOST_GROWTH + 1)  # the separator stands between all items, and is not a literal
    return whole
