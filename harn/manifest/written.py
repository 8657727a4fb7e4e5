"""Checked values as people write them in the manifest: durations with a unit, shares in percent, one secret as one."""

from __future__ import annotations

from typing import Any

from harn.manifest.fields import Duration, Field, Share
from harn.manifest.settings import ORCHESTRATOR
from harn.manifest.vocabulary import MATCH, RETRY, TRIGGER
from harn.model.durations import format_duration
from harn.model.shares import format_share

_TABLES = {"match": MATCH, "retry": RETRY}


def written_field(key: str, value: Any) -> Any:
    """
    Write a value of a trigger's spec.

    :param key: dotted, as `harn.manifest.changes` names it; ``value`` as that gives it.
    """
    table, _, name = key.partition(".")
    if table == "secrets" and value is not None and len(value) == 1:
        return value[0]
    if name and table not in _TABLES:
        return _written(None, value)  # a secret's references, or of the provider's own table
    return _written(_TABLES[table].get(name) if name else TRIGGER.get(key), value)


def written_setting(key: str, value: Any) -> Any:
    """
    Write a value of ``[orchestrator]``.

    :param key: dotted, for example ``reload.drain_timeout``; ``value`` as `harn.manifest.changes` gives it.
    """
    *tables, name = key.split(".")
    shape = ORCHESTRATOR
    for table in tables:
        shape = shape.tables[table]
    return _written(shape.fields[name], value)


def _written(shape: Field | None, value: Any) -> Any:
    if not isinstance(value, int | float):
        return list(value) if isinstance(value, tuple) else value
    if isinstance(shape, Duration):
        return format_duration(value)
    return format_share(value) if isinstance(shape, Share) else value
