"""
Generations as the store has them, and as ``history`` and ``show`` give them: from a running server or without one.

Pure: whoever calls reads the store.
"""

from __future__ import annotations

import tokenize
from collections.abc import Iterable
from io import BytesIO

from msgspec import UNSET, structs

from harn.clocks import rfc3339
from harn.history.model import GenerationContent, GenerationInfo, ModuleInfo
from harn.store.generations import GenerationRecord
from harn.vm.bundle import Bundle, Module, sorted_modules


def describe_history(records: Iterable[GenerationRecord], live: int | None) -> tuple[GenerationInfo, ...]:
    """
    Return one entry for each record, in their order.

    :param live: the generation that serves; None when no server runs.
    """
    return tuple(
        GenerationInfo(
            generation=record.number,
            digest=record.digest,
            source=record.source,
            actor=record.actor,
            adopted_at=None if record.adopted_at is None else rfc3339(record.adopted_at),
            live=record.number == live,
            recalled=record.recalled,
            reason=record.reason,
            summary=dict(record.summary),
        )
        for record in records
    )


def describe_recorded(
    record: GenerationRecord, manifest: str, bundle: Bundle, live: int | None, *, sources: bool
) -> GenerationContent:
    """
    Return one generation with its content.

    :param manifest: the manifest's text.
    :param live: see `describe_history`.
    :param sources: each module's text, too.
    """
    [entry] = describe_history((record,), live)
    return GenerationContent(
        **structs.asdict(entry),
        manifest_digest=record.manifest_digest,
        manifest=manifest,
        modules=tuple(_describe_module(module, sources) for module in sorted_modules(bundle.modules)),
    )


def _describe_module(module: Module, sources: bool) -> ModuleInfo:
    source = source_text(module.source) if sources else UNSET
    return ModuleInfo(name=module.name, path=module.path, digest=module.digest, source=source)


def source_text(source: bytes) -> str:
    """Decode a module as Python does, by its mark or its comment; bytes that cannot be decoded are replaced."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
        text = source.decode(encoding, "replace")
    except (SyntaxError, LookupError, ValueError):
        text = source.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode("utf-8")  # some codecs give halves of pairs, which no JSON has
