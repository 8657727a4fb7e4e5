"""
Reconciliation: the live definitions of bindings compared with the next ones. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from harn.manifest.changes import changed_fields
from harn.triggers.binding import Definition


class Plan(Struct, frozen=True, kw_only=True):
    """
    Ids sorted; ``changes`` has for each modified id what changed, for example ``("handler code", "retry.max")``.
    """

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def differences(live: Definition, following: Definition) -> tuple[str, ...]:
    """Return the differences between two definitions of one trigger, for people."""
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
    Sort every trigger id of both sides into added, modified, removed and unchanged.

    A definition that is the same object costs one comparison, so an edit of one of many triggers is cheap.
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
"""Triggers that must go before anybody is asked: one may always be deleted."""


def would_remove_most(removed: int, live: int) -> bool:
    """
    Return whether removing so many of the live triggers is to be confirmed: more than half, and at least two.

    :param live: how many there are before.
    """
    return removed >= FEWEST and 2 * removed > live
