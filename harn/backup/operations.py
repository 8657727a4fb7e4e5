"""
Backups as the admin API and the commands give them, and the operation by which a running server writes one of itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from harn.clocks import rfc3339
from harn.operations.model import Caller, Post, Result, Role, operation
from harn.operations.parameters import Parameters
from harn.store.backup import Contents
from harn.store.sqlite.copying import Copied

if TYPE_CHECKING:
    from harn.backup.backups import Backups


class BackupInfo(Result, frozen=True, kw_only=True):
    """A backup, and its contents."""

    file: Annotated[str, Meta(description="On the machine of the server that wrote it.")]
    bytes: int
    made_at: Annotated[str | None, Meta(description="Everything that was accepted before is in it.")]
    harn_version: str | None
    host: str | None
    has_digest_key: bool
    schema: int
    generation: Annotated[int, Meta(description="The newest that served; 0 for none.")]
    generations: Annotated[int, Meta(description="How many are kept with their manifests and code.")]
    deliveries: Annotated[dict[str, int], Meta(description="How many, by state.")]
    records: Annotated[int, Meta(description="Of topics that are appended.")]
    last_received_at: str | None
    warnings: Annotated[tuple[str, ...], Meta(description="What is wrong with some of its rows.")] = ()


class Restored(Result, frozen=True, kw_only=True):
    """A restored backup, or one that would be, and the state directory."""

    state_dir: str
    dry_run: bool
    refused: Annotated[str | None, Meta(description="Of a dry run: why the directory would not be used.")] = None
    backup: BackupInfo


class Problem(Result, frozen=True, kw_only=True):
    """Something that is wrong with a store, and what to do."""

    what: str
    hint: str


class StoreReport(Result, frozen=True, kw_only=True):
    """The result of a check of a store; ``status`` is ``ok`` or ``error``."""

    status: str
    file: str
    bytes: int
    free_bytes: Annotated[int, Meta(description="Of the file, in pages that hold nothing.")]
    shrinks: Annotated[bool, Meta(description="Whether the file becomes smaller when rows are removed.")]
    schema: int | None
    deliveries: dict[str, int]
    problems: tuple[Problem, ...]


def describe(file: str, copied: Copied) -> BackupInfo:
    """Return what is shown of a backup."""
    contents, origin = copied.contents, copied.origin
    return BackupInfo(
        file=file,
        bytes=copied.size,
        made_at=None if origin is None else rfc3339(origin.made_at),
        harn_version=None if origin is None else origin.harn_version,
        host=None if origin is None else origin.host,
        has_digest_key=origin is not None and origin.digest_key is not None,
        schema=contents.schema,
        generation=contents.generation,
        generations=contents.generations,
        deliveries=dict(contents.deliveries),
        records=contents.records,
        last_received_at=received(contents),
        warnings=tuple(f"{each.what}; {each.hint}" for each in copied.findings),
    )


def received(contents: Contents) -> str | None:
    """Return when the newest delivery was accepted."""
    return None if contents.last_received_at is None else rfc3339(contents.last_received_at)


class BackUp(Parameters, frozen=True, kw_only=True):
    """Where to."""

    file: Annotated[str, Meta(description="An absolute path on the server's machine; its directory exists.")]
    force: Annotated[bool, Meta(description="Replace a backup of that name.")] = False

    def __post_init__(self) -> None:
        """
        Refuse a path that depends on where the server was started.

        :raises ValueError: it is not absolute.
        """
        if not os.path.isabs(self.file) or "\0" in self.file:
            raise ValueError(f"file must be an absolute path, got {self.file!r}")


@operation(
    "backup",
    role=Role.ADMIN,
    route=Post("/backup"),
    audit=lambda made: {"bytes": made.bytes, "deliveries": sum(made.deliveries.values())},
)
async def back_up(backups: Backups, caller: Caller, wanted: BackUp) -> BackupInfo:
    """
    Write a backup of the running server into one file on its machine.

    :raises BackupRefused: it cannot be written there, or another is under way.
    :raises BackupFailed: it is not complete, or not sound; nothing is left of it.
    """
    return describe(wanted.file, await backups.make(wanted.file, replaces=wanted.force))


OPERATIONS = (back_up,)
"""Those of `Backups`."""
