"""The contents of a database, and findings about it, as backup, restore and the check of a store show them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    """
    Something that is wrong with a database: ``what`` it is, with numbers and names, and what to do: ``hint``.

    :ivar is_damage: the database cannot be relied on; else some of its rows alone.
    """

    what: str
    hint: str
    is_damage: bool = False


@frozen(kw_only=True)
class Contents:
    """
    The contents of a database, counted.

    :ivar schema: the version of its schema.
    :ivar generation: the newest that served; 0 for none.
    :ivar generations: how many are kept with their content.
    :ivar deliveries: how many there are, by state as operators know it; states without any are left out.
    :ivar records: of the event log.
    :ivar last_received_at: when the newest delivery was accepted (seconds, Unix); None for none.
    """

    schema: int
    generation: int
    generations: int
    deliveries: Mapping[str, int] = field(factory=dict)
    records: int
    last_received_at: float | None


@frozen(kw_only=True)
class BackupOrigin:
    """
    Where a backup comes from: its contents beside the database itself.

    :ivar made_at: seconds, Unix: everything that was accepted before is in it.
    :ivar harn_version: of the program that made it.
    :ivar host: where that ran.
    :ivar digest_key: the key that makes digests of secrets useless to others; None where there was none.
    """

    made_at: float
    harn_version: str
    host: str
    digest_key: bytes | None = field(default=None, repr=False)
