"""The archive: the content of generations that served, out of the store: to be looked at, compared, adopted again."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from attrs import field, frozen

from harn.errors import GenerationUnknown
from harn.store.interfaces import IGenerations
from harn.store.model import GenerationRecord
from harn.vm.bundle import Bundle, decode_bundle

MOST_KEPT = 1000
"""Generations that can be kept at the most, as the manifest's settings have it."""
FAST = 1
"""A manifest of ten thousand triggers shrinks to a tenth in some milliseconds; more effort gains little."""

InThread = Callable[..., Awaitable[Any]]
"""``in_thread(function, *arguments)``: runs a function off the reactor thread."""


@frozen(kw_only=True)
class Content:
    """What one generation was made of: everything but its secrets, which are never kept."""

    record: GenerationRecord
    manifest: bytes = field(repr=False)
    bundle: Bundle = field(repr=False)


def pack_manifest(text: bytes) -> bytes:
    """Encode a manifest's text for the store."""
    return zlib.compress(text, FAST)


def unpack_manifest(data: bytes) -> bytes:
    """
    Decode what `pack_manifest` made.

    :raises ValueError: it is something else.
    """
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"the manifest's text cannot be read: {error}") from error


class Archive:
    """Reads earlier generations."""

    def __init__(self, generations: IGenerations, in_thread: InThread) -> None:
        self._generations = generations
        self._in_thread = in_thread

    async def content(self, number: int) -> Content:
        """
        Give the content of a generation that served.

        :raises GenerationUnknown: there was none of that number, or its content is not kept.
        :raises EventLogUnavailable: the store cannot be read.
        """
        record = await self._generations.generation(number)
        if record is None:
            raise GenerationUnknown(f"there is no generation {number} to go by; {await self._kept()}")
        packed = await self._generations.manifest(record.manifest_digest) if record.manifest_digest else None
        encoded = await self._generations.bundle(record.bundle_id)
        if packed is None or encoded is None:
            raise GenerationUnknown(f"the content of generation {number} is not kept; {await self._kept()}")
        try:
            manifest = await self._in_thread(unpack_manifest, packed)
            bundle = await self._in_thread(decode_bundle, encoded)
        except (ValueError, msgspec.MsgspecError) as error:
            raise GenerationUnknown(f"the content of generation {number} is damaged: {error}") from error
        return Content(record=record, manifest=manifest, bundle=bundle)

    async def before(self, number: int, digest: str) -> int:
        """
        Give the newest generation before ``number`` whose content is another than ``digest`` and still kept.

        :raises GenerationUnknown: there is none.
        """
        for record in await self._generations.history(MOST_KEPT):
            if record.number < number and record.digest != digest and record.manifest_digest:
                return record.number
        raise GenerationUnknown(f"no generation before {number} with another content is kept")

    async def newest(self) -> int:
        """
        Give the newest generation whose content is kept.

        :raises GenerationUnknown: there is none.
        """
        for record in await self._generations.history(MOST_KEPT):
            if record.manifest_digest:
                return record.number
        raise GenerationUnknown("no generation is kept that could serve")

    async def _kept(self) -> str:
        numbers = sorted(
            record.number for record in await self._generations.history(MOST_KEPT) if record.manifest_digest
        )
        return f"kept are: {', '.join(map(str, numbers[-20:]))}" if numbers else "none is kept"
