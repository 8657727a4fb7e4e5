"""The operation by which a running server writes a backup of itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from harn.backup.model import BackupInfo, describe
from harn.operations.model import Caller, Post, Role, operation
from harn.operations.parameters import Parameters

if TYPE_CHECKING:
    from harn.backup.backups import Backups


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
