"""The archive: the content of generations that served, read from the store to be shown, compared or adopted again."""

from __future__ import annotations

import zlib

import msgspec
from attrs import field, frozen

from harn.errors import GenerationUnknown
from harn.reload.inputs import Inputs
from harn.reload.report import REVERT
from harn.store.generations import GenerationRecord, IGenerations
from harn.vm.bundle import Bundle, decode_bundle
from harn.waiting import InThread
from harn.wire import digest_bytes

MOST_KEPT = 1000
"""Generations that can be kept at the most, as the manifest's settings have it."""
FAST = 1
"""A manifest of ten thousand triggers shrinks to a tenth in some milliseconds; more effort gains little."""


@frozen(kw_only=True)
class Content:
    """The content of one generation: everything but its secrets, which are never kept."""

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


def read_manifest_text(data: bytes, digest: str) -> bytes:
    """
    Decode a manifest's text out of the store.

    :raises ValueError: it is damaged: its text has another digest than ``digest``, or it cannot be decompressed.
    """
    text = unpack_manifest(data)
    if digest_bytes(text) != digest:
        raise ValueError("the manifest's text is not what was put there")
    return text


def read_kept_bundle(data: bytes, bundle_id: str) -> Bundle:
    """
    Decode a bundle out of the store.

    :raises ValueError: it is damaged: it would have another id, or is something else.
    """
    try:
        bundle = decode_bundle(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the sources cannot be read: {error}") from error
    if bundle.bundle_id != bundle_id:
        raise ValueError("the sources are not what was put there")
    return bundle


class Archive:
    """Reads earlier generations."""

    def __init__(self, generations: IGenerations, in_thread: InThread) -> None:
        self._generations = generations
        self._in_thread = in_thread

    async def content(self, number: int) -> Content:
        """
        Return the content of a generation that served.

        :raises GenerationUnknown: there was none of that number, or its content is not kept.
        :raises EventLogUnavailable: the store cannot be read.
        """
        record = await self._generations.generation(number)
        if record is None:
            raise GenerationUnknown(f"there is no generation {number}; {await self._kept()}")
        packed = await self._generations.manifest(record.manifest_digest) if record.manifest_digest else None
        encoded = await self._generations.bundle(record.bundle_id)
        if packed is None or encoded is None:
            raise GenerationUnknown(f"the content of generation {number} is not kept; {await self._kept()}")
        try:
            manifest = await self._in_thread(read_manifest_text, packed, record.manifest_digest)
            bundle = await self._in_thread(read_kept_bundle, encoded, record.bundle_id)
        except ValueError as error:
            raise GenerationUnknown(f"the content of generation {number} is damaged: {error}") from error
        return Content(record=record, manifest=manifest, bundle=bundle)

    async def before(self, number: int, inputs: Inputs) -> int:
        """
        Return the newest generation before ``number`` whose manifest or code differs from that of ``inputs``.

        Secrets are not compared: they are never kept, so a generation that differs only in them is what serves already.
        Where what serves was adopted by an automatic revert, only generations before the one that it restored count.

        :raises GenerationUnknown: no such generation is kept.
        """
        content = inputs.manifest.digest, inputs.bundle.bundle_id
        for record in await self._generations.history(MOST_KEPT):  # newest first
            kept = record.manifest_digest, record.bundle_id
            if kept == content:
                if record.source == REVERT and record.recalled is not None:
                    number = min(number, record.recalled)
            elif record.number < number and record.manifest_digest:
                return record.number
        raise GenerationUnknown(f"no generation before {number} with another content is kept; {await self._kept()}")

    async def newest(self) -> int:
        """
        Return the newest generation whose content is kept.

        :raises GenerationUnknown: the content of no generation is kept.
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
