"""
Generations as the store has them, and as ``history`` and ``show`` give them: from a running server or without one.

Pure: whoever calls reads the store.
"""

from __future__ import annotations

import tokenize
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from harn.clocks import rfc3339
from harn.store.generations import GenerationRecord
from harn.vm.bundle import Bundle, Module, sorted_modules

HISTORY = 20
"""Generations that are listed unless somebody asks for more or fewer."""
LONGEST_HISTORY = 1000


def describe_history(records: Iterable[GenerationRecord], live: int | None) -> list[dict[str, Any]]:
    """
    Give one entry for each record, in their order.

    :param live: the generation that serves; None when no server runs.
    """
    return [
        {
            "generation": record.number,
            "digest": record.digest,
            "source": record.source,
            "actor": record.actor,
            "adopted_at": None if record.adopted_at is None else rfc3339(record.adopted_at),
            "live": record.number == live,
            "recalled": record.recalled,
            "reason": record.reason,
            "summary": dict(record.summary),
        }
        for record in records
    ]


def describe_recorded(
    record: GenerationRecord, manifest: str, bundle: Bundle, live: int | None, *, sources: bool
) -> dict[str, Any]:
    """
    Give one generation with its content.

    :param manifest: the manifest's text.
    :param live: see `describe_history`.
    :param sources: each module's text, too.
    """
    [entry] = describe_history((record,), live)
    return {
        "generation": entry.pop("generation"),
        "digest": entry.pop("digest"),
        "manifest_digest": record.manifest_digest,
        **entry,
        "manifest": manifest,
        "modules": [_describe_module(module, sources) for module in sorted_modules(bundle.modules)],
    }


def _describe_module(module: Module, sources: bool) -> dict[str, Any]:
    described = {"name": module.name, "path": module.path, "digest": module.digest}
    return {**described, "source": source_text(module.source)} if sources else described


def source_text(source: bytes) -> str:
    """Decode a module as Python does, by its mark or its comment; bytes that are no text are replaced."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
        text = source.decode(encoding, "replace")
    except (SyntaxError, LookupError, ValueError):
        text = source.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode("utf-8")  # some codecs give halves of pairs, which no JSON has
