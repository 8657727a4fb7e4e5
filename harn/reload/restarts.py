"""Changes that a start finds: what its first generation changed since the one that served last. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

from harn.reload.numbers import VersionNumbers
from harn.triggers.binding import Definition
from harn.triggers.reconcile import Plan


def changes_of_restart(manifest: bytes, definitions: Mapping[str, Definition], versions: VersionNumbers) -> Plan:
    """
    Return what differs from the manifest that served last; ``changes`` is left empty.

    :param manifest: its text. From one that cannot be read every trigger counts as added.
    :param definitions: of the new generation; ``versions``: the numbers that triggers had before the start.
    """
    before = trigger_ids(manifest)
    same = {trigger_id for trigger_id, each in definitions.items() if versions.kept(each) is not None}
    return Plan(
        added=tuple(sorted(definitions.keys() - before)),
        modified=tuple(sorted((definitions.keys() & before) - same)),
        removed=tuple(sorted(before - definitions.keys())),
        unchanged=tuple(sorted(before & same)),
    )


def trigger_ids(manifest: bytes) -> frozenset[str]:
    """Return the ids of the triggers of a manifest that was valid once; none where it cannot be read."""
    try:
        tables = tomllib.loads(manifest.decode("utf-8")).get("triggers", [])
        return frozenset(str(table["id"]) for table in tables)
    except (ValueError, TypeError, KeyError, AttributeError):
        return frozenset()
