"""
The comparison of the live definitions of bindings with those of the next generation. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from harn.manifest.changes import changed_fields
from harn.triggers.binding import Definition


class Plan(Struct, frozen=True, kw_only=True):
    """
    The changes that a reload makes, as sorted trigger ids.

    :ivar added: the ids that only the next generation has.
    :ivar modified: the ids whose definitions differ.
    :ivar removed: the ids that only the live generation has.
    :ivar unchanged: the ids whose definitions are equal.
    :ivar changes: the differences by modified id, for example ``("handler code", "retry.max")``.
    """

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def differences(live: Definition, following: Definition) -> tuple[str, ...]:
    """Return the names of the differences between two definitions of one trigger, as users read them."""
    changes: list[str] = []
    if live.handler_code != following.handler_code and live.spec.handler == following.spec.handler:
        changes.append("handler code")
    if live.predicate_code != following.predicate_code and live.spec.when == following.spec.when:
        changes.append("predicate code")
    if live.spec_fingerprint != following.spec_fingerprint:
        changes.extend(changed_fields(live.spec, following.spec))
    return tuple(changes)


def reconcile(live: Mapping[str, Definition], following: Mapping[str, Definition]) -> Plan:
    """
    Return which triggers are added, modified, removed and unchanged.

    If both definitions of a trigger are the same object, they are not compared further: an edit of one trigger among
    many is cheap.
    """
    added, modified, unchanged = [], [], []
    changes: dict[str, tuple[str, ...]] = {}
    for trigger_id, definition in following.items():
        known = live.get(trigger_id)
        if known is definition or (known is not None and known.fingerprint == definition.fingerprint):
            unchanged.append(trigger_id)
        elif known is None:
            added.append(trigger_id)
        else:
            modified.append(trigger_id)
            changes[trigger_id] = differences(known, definition)
    removed = [trigger_id for trigger_id in live if trigger_id not in following]
    return Plan(
        added=tuple(sorted(added)),
        modified=tuple(sorted(modified)),
        removed=tuple(sorted(removed)),
        unchanged=tuple(sorted(unchanged)),
        changes=changes,
    )


FEWEST = 2
"""The least number of removed triggers for which a confirmation is required: one may always be deleted."""


def would_remove_most(removed: int, live: int) -> bool:
    """
    Return whether a removal of triggers must be confirmed: of more than half of the live ones, and at least `FEWEST`.

    :param removed: the number of triggers to be removed.
    :param live: the number of triggers before the removal.
    """
    return removed >= FEWEST and 2 * removed > live
