"""``[orchestrator]`` and its tables: their fields, and their validation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from attrs import field, frozen

from harn.manifest.fields import Choice, Duration, Field, Flag, Integer, Number, Share, Text, Texts
from harn.manifest.findings import Findings, quote, suggest
from harn.manifest.model import (
    AdmissionSettings,
    DrainSettings,
    OrchestratorSettings,
    PumpSettings,
    ReloadSettings,
    RetentionSettings,
    VmSettings,
)
from harn.manifest.tables import Table
from harn.observability.levels import LEVELS

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", re.ASCII)
_YEARS = 10 * 366 * 86400


def _fault_of_origin(text: str) -> tuple[str, str] | None:
    if not text.strip() or text in ("*", "null") or _ORIGIN.fullmatch(text):
        return None
    return f"must be an origin, got {quote(text)}", "write scheme://host[:port] in lower case without a path, or *"


def fault_of_glob(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a pattern of local modules and what to write; None when it is valid."""
    if text.startswith(("/", "~")) or "\\" in text or ".." in text.split("/"):
        return f"{quote(text)} leads out of the manifest's directory", 'write it relative, for example "rules/*.py"'
    if not text.endswith(".py"):
        return f"{quote(text)} does not end in .py", 'write for example "rules/*.py"'
    return None


@frozen(kw_only=True)
class Shape:
    """
    A table of settings: the struct that it becomes, its keys, and its sub-tables.

    :ivar restart: the keys that only a start reads. A reload applies all others, as a test checks.
    """

    struct: type[msgspec.Struct]
    description: str
    fields: Mapping[str, Field]
    tables: Mapping[str, Shape] = field(factory=dict)
    restart: frozenset[str] = frozenset()


ORCHESTRATOR = Shape(
    struct=OrchestratorSettings,
    description="Settings of the server; they apply on reload too.",
    restart=frozenset(("recover",)),
    fields={
        "allow_empty": Flag("Accept a manifest without triggers."),
        "allowed_origins": Texts(
            "Values of the Origin header to admit; empty, or *, for any.", Text("", _fault_of_origin)
        ),
        "max_body_bytes": Integer("The biggest request body, in bytes.", 1, 2**31),
        "recover": Choice("What happens to unfinished deliveries after a restart.", ("auto", "manual")),
        "log_level": Choice("Minimum log level.", LEVELS),
    },
    tables={
        "drain": Shape(
            struct=DrainSettings,
            description="Limits of draining at shutdown.",
            fields={
                "max_items": Integer("The most deliveries to finish.", 1),
                "deadline_seconds": Number("The longest wait, in seconds.", 0, _YEARS),
            },
        ),
        "pumps": Shape(
            struct=PumpSettings,
            description="Concurrency.",
            fields={"max_outstanding": Integer("Handlers that run at once.", 1, 100_000)},
        ),
        "retention": Shape(
            struct=RetentionSettings,
            description="Retention; unfinished deliveries are always kept.",
            fields={
                "events": Duration('Age at which finished deliveries are removed; "7d" by default.'),
                "dead": Duration('Age at which dead letters are removed; "30d" by default.'),
                "max_bytes": Integer("Size above which the oldest finished ones are removed; no limit by default.", 1),
                "generations": Integer("Adopted generations kept for history and rollback.", 2, 1000),
            },
        ),
        "reload": Shape(
            struct=ReloadSettings,
            description="Time limits of a reload, and automatic rollback.",
            fields={
                "drain_timeout": Duration('How long a replaced version may drain; "5m" by default.'),
                "timeout": Duration('How long each stage may take, at a start at least 5 s; "30s" by default.'),
                "confirm_within": Duration("Time to confirm a new generation, else it is rolled back; off by default."),
                "revert_on_failures": Share(
                    "Share of failed attempts of new versions above which they are rolled back; off by default.",
                    partial=True,
                ),
                "revert_min": Integer("Attempts of new versions before the share counts.", 1),
                "revert_for": Duration('How long failures of new versions count; "2m" by default.'),
            },
        ),
        "vm": Shape(
            struct=VmSettings,
            description="The interpreters that run handlers.",
            fields={
                "include": Texts("Local modules that imports do not show, as globs.", Text("", fault_of_glob)),
            },
        ),
        "admission": Shape(
            struct=AdmissionSettings,
            description="Limits of admission; rates are off by default.",
            fields={
                "max_pending_events": Integer("Events that are not yet durable.", 1),
                "max_pending_bytes": Integer(
                    "Bytes of their bodies, and of deliveries that memory holds: these take up to half of it.", 1
                ),
                "max_unverified_bytes": Integer(
                    "Bytes of requests being read before their sender is verified; at least twice max_body_bytes.", 1
                ),
                "max_connections": Integer("Connections at once; the limit of open files may allow less.", 1),
                "global_rate": Number("Requests a second in all.", positive=True),
                "rate": Number("Requests a second of each trigger.", positive=True),
                "burst": Integer("Requests that may come at once before a rate counts.", 1),
            },
        ),
    },
)
_LATER = frozenset(("budget",))


def spellings(shape: Shape) -> dict[str, str]:
    """Return the other spelling of each key of ``shape``, with hyphens, mapped to the usual one."""
    return {key.replace("_", "-"): key for key in (*shape.fields, *shape.tables) if "_" in key}


def needing_restart(shape: Shape = ORCHESTRATOR, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield every setting, dotted, for example ``drain.max_items``, and whether only a restart can change it."""
    for key in shape.fields:
        yield prefix + key, key in shape.restart
    for name, inner in shape.tables.items():
        yield from needing_restart(inner, f"{prefix}{name}.")


def check_orchestrator(raw: Any, findings: Findings) -> OrchestratorSettings:
    """Check ``[orchestrator]`` (None when it is absent); an invalid value keeps its default."""
    if raw is None:
        return OrchestratorSettings()
    table = Table.of(raw, ("orchestrator",), findings)
    if table is None:
        return OrchestratorSettings()
    settings: OrchestratorSettings = _check(table, ORCHESTRATOR, _LATER)
    given = raw.get("admission")
    if settings.admission.burst is not None and not given.keys() & {"rate", "global_rate", "global-rate"}:
        path = ("orchestrator", "admission", "burst")
        findings.add(path, "counts only with rate or global_rate", "set one of them, or remove burst")
    _check_revert(raw.get("reload"), findings)
    return msgspec.structs.replace(settings, allowed_origins=_origins(settings.allowed_origins, findings))


def _check_revert(given: Any, findings: Findings) -> None:
    """Refuse settings of the failure limit where no limit is set."""
    if not isinstance(given, dict) or given.keys() & {"revert_on_failures", "revert-on-failures"}:
        return
    for key in ("revert_min", "revert-min", "revert_for", "revert-for"):
        if key in given:
            path = ("orchestrator", "reload", key)
            findings.add(path, "counts only with revert_on_failures", f"set that, or remove {key}")


def _origins(given: tuple[str, ...], findings: Findings) -> tuple[str, ...]:
    """
    Drop blanks; ``*`` is any, and so is an empty list. A list of blanks alone is a mistake that must not admit
    everyone.
    """
    named = tuple(origin for origin in given if origin.strip())
    if given and not named:
        findings.add(("orchestrator", "allowed_origins"), "names no origin", "remove the key to admit any")
    return () if "*" in named else named


def _check(table: Table, shape: Shape, later: frozenset[str] = frozenset()) -> Any:
    table = table.respelled(spellings(shape))
    known = shape.fields.keys() | shape.tables.keys()
    given: dict[str, Any] = {}
    for key in table.raw:
        if key in shape.fields:
            value = table.take(key, shape.fields[key])
            if value is not None:
                given[key] = value
        elif key in shape.tables:
            inner = table.table(key)
            if inner is not None:
                given[key] = _check(inner, shape.tables[key])
        elif key in later:
            table.problem(key, "is not supported yet", "remove it")
        else:
            table.problem(key, "unknown key", suggest(key, known))
    return shape.struct(**given)
