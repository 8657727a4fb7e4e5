"""
Differences between two checked manifests, named and written as in the manifest.

Durations are written with a unit, shares in percent, and one secret as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from harn.manifest.alerts import AlertTables
from harn.manifest.fields import Duration, Durations, Field, Share
from harn.manifest.model import MATCH, TRIGGER, TriggerSpec
from harn.manifest.settings import ORCHESTRATOR, OrchestratorSettings
from harn.model.quantities import format_duration, format_share

_MISSING = object()
_WRITTEN = {"events": "match.events"}

RESTART_SETTINGS = frozenset(key for key, only_restart in ORCHESTRATOR.needing_restart() if only_restart)
"""Settings that are read once, when the server starts, for example ``recover``."""

LIVE_SETTINGS = frozenset(key for key, only_restart in ORCHESTRATOR.needing_restart() if not only_restart)
"""Settings that a reload applies, for example ``drain.max_items``."""


def changed_fields(old: TriggerSpec, new: TriggerSpec, table: str | None = None) -> tuple[str, ...]:
    """
    Return the keys in which two specs of one trigger differ, sorted, for example ``("path", "retry.max")``.

    Never ``rollout``, which alone changes nothing.

    :param table: the name of the provider's own table; by default its id, with underscores.
    """
    return tuple(sorted({key for key, _, _ in field_differences(old, new, table)}))


def field_differences(old: TriggerSpec, new: TriggerSpec, table: str | None = None) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key of `changed_fields` with both values as built-in types; None for an absent one."""
    own = table if table is not None else new.provider.replace("-", "_")
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for name in TriggerSpec.__struct_fields__:
        if name == "rollout":
            continue
        key = own if name == "settings" else _WRITTEN.get(name, name)
        yield from _differences(key, before[name], after[name])


def changed_settings(old: OrchestratorSettings, new: OrchestratorSettings) -> tuple[str, ...]:
    """Return the keys of ``[orchestrator]`` that differ, sorted, for example ``("drain.max_items",)``."""
    return tuple(sorted({key for key, _, _ in setting_differences(old, new)}))


def setting_differences(old: OrchestratorSettings, new: OrchestratorSettings) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key of `changed_settings` with both values as built-in types; None for an absent one."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    for name in before:
        yield from _differences(name, before[name], after[name])


def settings_requiring_restart(old: OrchestratorSettings, new: OrchestratorSettings) -> tuple[str, ...]:
    """Return the differing settings that only a restart can change, for example ``("orchestrator.recover",)``."""
    return tuple(f"orchestrator.{key}" for key in changed_settings(old, new) if key in RESTART_SETTINGS)


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(f"{key}.{name}", old.get(name, _MISSING), new.get(name, _MISSING))
    elif type(old) is not type(new) or old != new:
        yield key, None if old is _MISSING else old, None if new is _MISSING else new


_TABLES = {**TRIGGER.tables, "match": MATCH}


def format_field(key: str, value: Any) -> Any:
    """
    Format a value of a trigger's spec.

    :param key: the dotted key, as `field_differences` names it.
    :param value: its value, as `field_differences` returns it.
    """
    table, _, name = key.partition(".")
    if table == "secrets" and value is not None and len(value) == 1:
        return value[0]
    if name and table not in _TABLES:
        return _formatted(None, value)  # a secret's references, or a key of the provider's own table
    return _formatted(_TABLES[table].fields.get(name) if name else TRIGGER.fields.get(key), value)


def format_setting(key: str, value: Any) -> Any:
    """
    Format a value of ``[orchestrator]``.

    :param key: the dotted key, for example ``reload.drain_timeout``.
    :param value: its value, as `setting_differences` returns it.
    """
    *tables, name = key.split(".")
    shape = ORCHESTRATOR
    for table in tables:
        shape = shape.tables[table]
    return _formatted(shape.fields[name], value)


def _formatted(shape: Field | None, value: Any) -> Any:
    if isinstance(value, tuple | list) and isinstance(shape, Durations):
        return [format_duration(each) for each in value]
    if isinstance(shape, AlertTables) and value is not None:
        return shape.written(value)
    if not isinstance(value, int | float):
        return list(value) if isinstance(value, tuple) else value
    if isinstance(shape, Duration):
        return format_duration(value)
    return format_share(value) if isinstance(shape, Share) else value
