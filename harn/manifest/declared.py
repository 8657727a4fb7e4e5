"""
Tables of the manifest declared as structs: each key with its type, its default and the field that checks it, once.

A key is a field of the struct, annotated with its `harn.manifest.fields.Field`, and with `RESTART` if only a start
reads it; a sub-table is a field whose type is such a struct. The first paragraph of the struct's docstring describes
the table to authors.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import msgspec
from attrs import frozen

from harn.manifest.fields import Field

RESTART = object()
"""Marks a key that only a start reads; a reload applies all others."""


@frozen(kw_only=True)
class Shape:
    """
    A table: the struct that it becomes, its keys, and its sub-tables.

    :ivar restart: the keys that only a start reads.
    :ivar names: the struct's name of each key and sub-table, which differs where the struct renames one.
    """

    struct: type[msgspec.Struct]
    description: str
    fields: Mapping[str, Field]
    tables: Mapping[str, Shape]
    restart: frozenset[str]
    names: Mapping[str, str]

    @classmethod
    def of(cls, struct: type[msgspec.Struct]) -> Shape:
        """Return the shape of a table that becomes ``struct``."""
        hints = get_type_hints(struct, include_extras=True)
        fields: dict[str, Field] = {}
        tables: dict[str, Shape] = {}
        restart = set()
        names = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))
        for key, name in names.items():
            kind, *notes = get_args(hints[name]) or (hints[name],)
            found = next((note for note in notes if hasattr(note, "json_schema")), None)
            if found is not None:
                fields[key] = found
            elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                tables[key] = cls.of(kind)
            else:
                raise TypeError(f"{struct.__name__}.{name} must be annotated with a field, or be a struct")
            if RESTART in notes:
                restart.add(key)
        description = " ".join((inspect.getdoc(struct) or "").split("\n\n")[0].split())
        return cls(
            struct=struct,
            description=description,
            fields=fields,
            tables=tables,
            restart=frozenset(restart),
            names=names,
        )

    def needing_restart(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Yield every key, dotted, for example ``drain.max_items``, and whether only a restart can change it."""
        for key in self.fields:
            yield prefix + key, key in self.restart
        for name, inner in self.tables.items():
            yield from inner.needing_restart(f"{prefix}{name}.")

    def spellings(self) -> dict[str, str]:
        """Return the other spelling of each key, with hyphens, mapped to the usual one."""
        return {key.replace("_", "-"): key for key in (*self.fields, *self.tables) if "_" in key}


def fields_of(struct: type[msgspec.Struct]) -> Mapping[str, Any]:
    """Return the fields of a table without sub-tables, by key."""
    return Shape.of(struct).fields
