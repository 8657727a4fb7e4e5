"""
Evaluation of a trigger's rules for one event: match, filter, dedupe key. Pure functions.

An expression over the envelope alone (``event.dedupe_key``, ``event.headers."x-id"``) is evaluated without parsing the
body; any other is JMESPath over ``{"event": event.to_dict()}``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import jmespath
import msgspec
from attrs import field, frozen
from msgspec import Struct

from harn.manifest.model import TriggerSpec
from harn.model.event import TriggerEvent
from harn.wire import canonical_json

_ENVELOPE_FIELDS = frozenset(
    ("id", "provider", "kind", "received_at", "occurred_at", "dedupe_key", "trace_id", "tenant_id", "headers")
)


class Matched(msgspec.Struct, frozen=True, gc=False):
    """
    The result for an event that passes the trigger's rules.

    :ivar dedupe_key: the key of its claim; None if no claim is made.
    """

    dedupe_key: str | None


_MATCHED = Matched(None)


class Ignored(Struct, frozen=True):
    """
    The result for an event that does not pass the trigger's rules.

    :ivar stage: the rule that it did not pass, ``match`` or ``filter``.
    """

    stage: str


class FilterFailed(Struct, frozen=True):
    """
    The result for an event on which an expression of the trigger cannot be evaluated.

    :ivar error: the class and the text of the exception.
    """

    error: str


Decision = Matched | Ignored | FilterFailed


class IExpression(Protocol):
    """A compiled expression of a trigger."""

    def search(self, event: TriggerEvent) -> Any:
        """Return the value of the expression on an event."""


class Expression(Struct, frozen=True):
    """
    An expression that JMESPath evaluates.

    :ivar parsed: the expression as ``jmespath.compile`` returns it.
    """

    parsed: Any

    def search(self, event: TriggerEvent) -> Any:
        """See `IExpression.search`."""
        return self.parsed.search({"event": event.to_dict()})


class EnvelopePath(Struct, frozen=True):
    """
    A path to a field of the envelope, which is evaluated without parsing the body.

    :ivar first: the attribute of the event.
    :ivar rest: the keys below it.
    """

    first: str
    rest: tuple[str, ...]

    def search(self, event: TriggerEvent) -> Any:
        """See `IExpression.search`."""
        value = getattr(event, self.first)
        for name in self.rest:
            value = value.get(name) if isinstance(value, dict) else None
        return value


def matches(patterns: tuple[str, ...], kind: str) -> bool:
    """
    Return whether ``kind`` matches one of ``patterns``.

    No patterns match everything; ``issues.*`` matches every kind that begins with ``issues.``.
    """
    for pattern in patterns:
        if kind == pattern or (pattern.endswith(".*") and kind.startswith(pattern[:-1])):
            return True
    return not patterns


def is_truthy(value: Any) -> bool:
    """
    Return whether ``value`` is true in JMESPath: all but null, false, and empty strings, lists and objects.

    Zero is true. Source: JMESPath specification, "Or Expressions".
    """
    return not (value is None or value is False or value == "" or value == [] or value == {})


def _envelope_path(tree: Any) -> tuple[str, ...] | None:
    """Return the field names below ``event`` if a parsed expression is a path to a field of the envelope, else None."""
    if tree["type"] != "subexpression" or any(child["type"] != "field" for child in tree["children"]):
        return None
    root, *names = (str(child["value"]) for child in tree["children"])
    return tuple(names) if root == "event" and names[0] in _ENVELOPE_FIELDS else None


@lru_cache(maxsize=16_384)
def compile_expression(text: str) -> IExpression:
    """
    Compile JMESPath text.

    :raises jmespath.exceptions.JMESPathError: ``text`` is not JMESPath.
    """
    parsed = jmespath.compile(text)
    path = _envelope_path(parsed.parsed)
    return Expression(parsed) if path is None else EnvelopePath(path[0], path[1:])


@frozen
class Rules:
    """
    The compiled rules of one binding version.

    :ivar events: patterns of event kinds; see `matches`.
    :ivar filter: the condition for events; None for all.
    :ivar dedupe_key: computes the key of the claim; None for no claim.
    :ivar is_by_kind: whether the rules read the kind of an event alone: there is neither a filter nor a dedupe key.
    """

    events: tuple[str, ...]
    filter: IExpression | None
    dedupe_key: IExpression | None
    is_by_kind: bool = field(init=False)
    _kinds: frozenset[str] = field(init=False)
    _families: tuple[str, ...] = field(init=False)

    @is_by_kind.default
    def _looks_at_kind_alone(self) -> bool:
        return self.filter is None and self.dedupe_key is None

    @_kinds.default
    def _exact_patterns(self) -> frozenset[str]:
        return frozenset(self.events)

    @_families.default
    def _beginnings(self) -> tuple[str, ...]:
        return tuple(pattern[:-1] for pattern in self.events if pattern.endswith(".*"))

    @classmethod
    def of(cls, spec: TriggerSpec) -> Rules:
        """Compile the rules of a checked spec."""
        return cls(
            spec.events,
            None if spec.filter is None else compile_expression(spec.filter),
            None if spec.dedupe_key is None else compile_expression(spec.dedupe_key),
        )

    def match(self, kind: str) -> bool:
        """Return whether ``events`` match a kind, as `matches` does; the number of patterns does not raise the cost."""
        return not self.events or kind in self._kinds or kind.startswith(self._families)

    def decide(self, event: TriggerEvent, *, always_claim: bool = False) -> Decision:
        """
        Return the result of the rules for an event.

        :param always_claim: claim the provider's key if the trigger has no dedupe key (cron ticks, ``jti``).
        """
        if not self.match(event.kind):
            return Ignored("match")
        if self.is_by_kind and not always_claim:
            return _MATCHED
        try:
            if self.filter is not None and not is_truthy(self.filter.search(event)):
                return Ignored("filter")
            if self.dedupe_key is None:
                return Matched(event.dedupe_key if always_claim else None)
            return Matched(_evaluated(self.dedupe_key, event))
        except Exception as error:
            # JMESPath also raises Python's errors: OverflowError of ceil(), ValueError of a slice, ...
            return FilterFailed(f"{type(error).__name__}: {error}")

    def key_of(self, event: TriggerEvent) -> str:
        """
        Return the dedupe key of an event, even if the event does not pass the rules.

        This is the provider's key if the trigger has no dedupe key, or if its expression fails.
        """
        if self.dedupe_key is None:
            return event.dedupe_key
        try:
            return _evaluated(self.dedupe_key, event)
        except Exception:
            return event.dedupe_key


def _evaluated(dedupe_key: IExpression, event: TriggerEvent) -> str:
    """Return the value of a dedupe key as text: for null the provider's key, for other values canonical JSON."""
    key = dedupe_key.search(event)
    if key is None:
        return event.dedupe_key
    return key if isinstance(key, str) else canonical_json(key).decode("utf-8")
