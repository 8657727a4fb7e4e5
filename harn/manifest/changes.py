"""What differs between two checked manifests, in the words of the person who edited one into the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from harn.manifest.model import OrchestratorSettings, TriggerSpec

_MISSING = object()
_WRITTEN = {"events": "match.events"}

LIVE_SETTINGS = frozenset(
    (
        *("allow_empty", "allowed_origins", "max_body_bytes"),
        *("drain.max_items", "drain.deadline_seconds", "pumps.max_outstanding"),
        *("retention.events", "retention.dead", "retention.max_bytes"),
        *("reload.drain_timeout", "reload.timeout", "vm.include"),
        *("admission.max_pending_events", "admission.max_pending_bytes"),
        *("admission.global_rate", "admission.rate", "admission.burst"),
    )
)
"""Settings that a reload applies."""

RESTART_SETTINGS = frozenset(("recover",))
"""Settings that are read once, when the server starts."""


def changed_fields(old: TriggerSpec, new: TriggerSpec, table: str | None = None) -> tuple[str, ...]:
    """
    Name the keys in which two specs of one trigger differ, sorted, for example ``("path", "retry.max")``.

    :param table: the name of the provider's own table; by default its id, with underscores.
    """
    own = table if table is not None else new.provider.replace("-", "_")
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    changed: set[str] = set()
    for name in TriggerSpec.__struct_fields__:
        key = own if name == "settings" else _WRITTEN.get(name, name)
        changed.update(_differences(key, before[name], after[name]))
    return tuple(sorted(changed))


def changed_settings(old: OrchestratorSettings, new: OrchestratorSettings) -> tuple[str, ...]:
    """Name the keys of ``[orchestrator]`` that differ, sorted, for example ``("drain.max_items",)``."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    changed = {key for name in before for key in _differences(name, before[name], after[name])}
    return tuple(sorted(changed))


def settings_requiring_restart(old: OrchestratorSettings, new: OrchestratorSettings) -> tuple[str, ...]:
    """Name what differs and only a restart can change, for example ``("orchestrator.recover",)``."""
    return tuple(f"orchestrator.{key}" for key in changed_settings(old, new) if key in RESTART_SETTINGS)


def _differences(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(f"{key}.{name}", old.get(name, _MISSING), new.get(name, _MISSING))
    elif type(old) is not type(new) or old != new:
        yield key
