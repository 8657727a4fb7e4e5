"""
The growth of a JMESPath expression: a bound of the size of its value, compared with the size of its input.

``[@, @][]`` makes a list twice as long, and thirty of them in a row make one that no memory holds. Whoever may read
deliveries may send an expression, so the growth is bounded before anything is evaluated.
"""

from __future__ import annotations

from math import prod
from typing import Any

MOST_GROWTH = 64
"""Copies of its input that the value of an expression may hold."""
_CHOICES = frozenset(("and_expression", "or_expression", "not_expression", "comparator"))
_LISTS = frozenset(("multi_select_list", "multi_select_dict"))


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
