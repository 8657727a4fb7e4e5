"""
Tables of the manifest: declared as structs, each key with its type, its default and its check, once; and read by that.

A key is a field of the struct, annotated with its `harn.manifest.fields.Field`, and with `RESTART` if only a start
reads it; a sub-table is a field whose type is such a struct. The first paragraph of the struct's docstring describes
the table to authors. The tables of providers are structs with plain types; see `StructSchema`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Struct
from zope.interface import implementer

from harn.manifest.diagnostics import (
    Diagnostic,
    Diagnostics,
    KeyPath,
    describe,
    format_key,
    nearest,
    parse_key,
    quote,
    suggest,
)
from harn.manifest.fields import Field
from harn.manifest.interfaces import ISettingsSchema, JsonSchema, SettingProblem

RESTART = object()
"""Marks a key that only a start reads; a reload applies all others."""
APART = object()
"""Marks a field of a struct that is not a key of its table, or is read in a way of its own."""


class Shape(Struct, frozen=True, kw_only=True):
    """
    A table: the struct that it becomes, its keys, and its sub-tables.

    :ivar keys: of fields and tables.
    :ivar required: those without a default.
    :ivar restart: those that only a start reads.
    :ivar names: the struct's name of each key and sub-table, which differs where the struct renames one.
    """

    struct: type[msgspec.Struct]
    description: str
    fields: Mapping[str, Field]
    tables: Mapping[str, Shape]
    keys: frozenset[str]
    required: frozenset[str]
    restart: frozenset[str]
    names: Mapping[str, str]

    @classmethod
    def of(cls, struct: type[msgspec.Struct]) -> Shape:
        """Return the shape of a table that becomes ``struct``."""
        hints = get_type_hints(struct, include_extras=True)
        fields: dict[str, Field] = {}
        tables: dict[str, Shape] = {}
        notes: dict[str, tuple[Any, ...]] = {}
        declared = {one.encode_name: one for one in msgspec.structs.fields(struct)}
        for key, one in declared.items():
            kind, *more = get_args(hints[one.name]) or (hints[one.name],)
            notes[key] = tuple(more)
            found = next((note for note in more if hasattr(note, "json_schema")), None)
            if found is not None:
                fields[key] = found
            elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                tables[key] = cls.of(kind)
            elif APART not in more:
                raise TypeError(f"{struct.__name__}.{one.name} must be annotated with a field, or be a struct")
        return cls(
            struct=struct,
            description=" ".join((inspect.getdoc(struct) or "").split("\n\n")[0].split()),
            fields=fields,
            tables=tables,
            keys=frozenset((*fields, *tables)),
            required=frozenset(key for key, one in declared.items() if one.required),
            restart=frozenset(key for key in declared if RESTART in notes[key]),
            names={key: one.name for key, one in declared.items()},
        )

    @classmethod
    def of_types(cls, struct: type[msgspec.Struct]) -> Shape:
        """Return the shape of a table that becomes ``struct``, whose fields have plain types that msgspec checks."""
        declared = {one.encode_name: one for one in msgspec.structs.fields(struct)}
        return cls(
            struct=struct,
            description="",
            fields={key: Typed("", one.type) for key, one in declared.items()},
            tables={},
            keys=frozenset(declared),
            required=frozenset(key for key, one in declared.items() if one.required),
            restart=frozenset(),
            names={key: one.name for key, one in declared.items()},
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


NO_HINTS: Mapping[str, str] = {}


class Table(msgspec.Struct, frozen=True, gc=False):
    """
    One table of the manifest, while it is read. A struct, since a load makes some for each trigger.

    :ivar raw: its keys and values.
    :ivar spelled: for a key that has another spelling, the one the author chose.
    """

    raw: Mapping[str, Any]
    path: KeyPath
    diagnostics: Diagnostics
    spelled: Mapping[str, str] = {}

    @classmethod
    def of(cls, value: Any, path: KeyPath, diagnostics: Diagnostics) -> Table | None:
        """Return a table of ``value``; None, and a diagnostic, when it is not a table."""
        if isinstance(value, dict):
            return cls(value, path, diagnostics)
        diagnostics.add(path, f"must be a table, got {describe(value)}")
        return None

    def respelled(self, known: Mapping[str, str]) -> Table:
        """Accept other spellings of keys; ``known`` maps each to the usual one."""
        spelled = {known[key]: key for key in self.raw if key in known}
        if not spelled:
            return self
        for usual, other in spelled.items():
            if usual in self.raw:
                self.diagnostics.add((*self.path, other), f"is {quote(usual)} in another spelling, and both are given")
        raw = {known.get(key, key): value for key, value in self.raw.items()}
        return Table(raw, self.path, self.diagnostics, spelled)

    def place(self, key: str) -> KeyPath:
        """Return the path of ``key`` as the author spelled it."""
        return (*self.path, self.spelled.get(key, key))

    def take(self, key: str, shape: Field, default: Any = None) -> Any:
        """Read one key; ``default`` when it is absent or wrong."""
        value = self.raw.get(key)
        if value is None:
            return default
        read = shape.read(value, (*self.path, key) if not self.spelled else self.place(key), self.diagnostics)
        return default if read is None else read

    def table(self, key: str) -> Table | None:
        """Enter a sub-table; None when it is absent, or wrong."""
        value = self.raw.get(key)
        return None if value is None else Table.of(value, self.place(key), self.diagnostics)

    def problem(self, key: str, message: str, hint: str = "") -> None:
        """Record a diagnostic about ``key``."""
        self.diagnostics.add(self.place(key), message, hint)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Record a diagnostic about every key that is not ``known``."""
        for key in self.raw.keys() - set(known):
            self.problem(key, "unknown key", suggest(key, known))

    def values(self, shape: Shape, hints: Mapping[str, str] = NO_HINTS) -> dict[str, Any]:
        """
        Read every key; return the right values by the struct's names, and record every problem.

        :param hints: by key that is required, what to write for it.
        """
        for key in self.raw.keys() - shape.keys:
            self.problem(key, "unknown key", suggest(key, shape.keys))
        for key in sorted(shape.required - self.raw.keys()):
            self.problem(key, "is missing", hints.get(key) or f"write {key} = ...")
        given: dict[str, Any] = {}
        for key in self.raw:
            field = shape.fields.get(key)
            if field is not None:
                value = self.take(key, field)
                if value is not None:
                    given[shape.names[key]] = value
            elif key in shape.tables:
                inner, table = shape.tables[key], self.table(key)
                if table is not None:
                    given[shape.names[key]] = inner.struct(**table.respelled(inner.spellings()).values(inner))
        return given


_Settings = TypeVar("_Settings", bound=msgspec.Struct)


class IChecksItself(Protocol):
    """A struct of settings with rules of its own."""

    def problems(self) -> Sequence[SettingProblem]:
        """Return the problems of the values; called only when each field alone is valid."""


@implementer(ISettingsSchema)
class StructSchema(Generic[_Settings]):
    """
    Checks a table key by key against the fields of a struct, as `Table.values` does, so that every problem is found.

    Fields with ``msgspec.Meta(description=...)`` are described in the JSON schema; ``ge``, ``le``, ``pattern`` and
    the rest are enforced. ``title`` says in words what a ``pattern`` allows: "the name of a header". Rules over several
    fields are those of `IChecksItself`.
    """

    def __init__(self, struct: type[_Settings]) -> None:
        self._struct = struct
        self._shape = Shape.of_types(struct)
        further = getattr(struct, "problems", None)  # a field of that name is a descriptor
        self._further = further if inspect.isfunction(further) else None

    def check(self, table: Mapping[str, Any]) -> tuple[_Settings | None, Sequence[SettingProblem]]:
        """Return the settings, or every problem."""
        found: list[Diagnostic] = []
        Table(table, (), Diagnostics(found)).values(self._shape)
        problems = [SettingProblem(key=format_key(one.path), message=one.message, hint=one.hint) for one in found]
        if problems:
            return None, problems
        try:
            settings = msgspec.convert(dict(table), self._struct)
        except msgspec.ValidationError as error:
            # Each key alone is valid: this is the struct's own ``__post_init__``.
            return None, [SettingProblem(key="", message=str(error))]
        if self._further is not None:
            problems.extend(self._further(settings))
        return (None if problems else settings), problems

    def json_schema(self) -> JsonSchema:
        """Return the struct's JSON schema, self-contained, closed to other keys."""
        return {**_schema_of(self._struct), "additionalProperties": False}


def _schema_of(wanted: Any) -> JsonSchema:
    """Return the JSON schema of a type with every reference replaced by its definition, so that it can be nested."""
    schema = msgspec.json.schema(wanted)
    definitions = schema.pop("$defs", {})

    def put_in_place(node: Any, within: frozenset[str]) -> Any:
        if isinstance(node, list):
            return [put_in_place(item, within) for item in node]
        if not isinstance(node, dict):
            return node
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if name in within:
            return {}  # A type that contains itself: anything is allowed from the second level on.
        if name:
            return put_in_place(definitions[name], within | {name})
        return {key: put_in_place(item, within) for key, item in node.items()}

    placed: dict[str, Any] = put_in_place(schema, frozenset())
    return placed


_NAMES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "a table",
}
_TYPES = re.compile(r"`([^`]*)`")


def _in_words(found: re.Match[str]) -> str:
    # TOML has no null: a key that may be null is one that may be left out.
    return " or ".join(_NAMES.get(name, name) for name in found[1].split(" | ") if name != "null")


class Typed(Struct, frozen=True):
    """A value of a type that msgspec checks, with its ``Meta``."""

    description: str
    type: Any

    def read(self, value: Any, path: KeyPath, diagnostics: Diagnostics) -> Any:
        """See `harn.manifest.fields.Field.read`."""
        try:
            return msgspec.convert(value, self.type)
        except (msgspec.ValidationError, RecursionError) as error:
            self._explain(value, path, diagnostics, error)
            return None

    def json_schema(self) -> JsonSchema:
        """See `harn.manifest.fields.Field.json_schema`."""
        return _schema_of(self.type)

    def _explain(self, value: Any, path: KeyPath, diagnostics: Diagnostics, error: Exception) -> None:
        """Translate msgspec's error in the manifest's terms."""
        said, _, where = str(error).partition(" - at `$")
        inner = parse_key(where.rstrip("`"))
        options = [] if inner else _options(self.type)
        if options:
            known = ", ".join(quote(option) for option in options)
            if not isinstance(value, str):
                diagnostics.add(path, f"must be a string, got {describe(value)}", f"known: {known}")
                return
            meant = nearest(value, options)
            hint = f"did you mean {quote(meant)}? known: {known}" if meant else f"known: {known}"
            diagnostics.add(path, f"{quote(value)} is not known", hint)
            return
        title = "" if inner or not isinstance(value, str) else _title(self.type)
        if title:
            diagnostics.add(path, f"must be {title}, got {quote(value)}")
            return
        if not said.startswith("Expected "):
            diagnostics.add((*path, *inner), said[:1].lower() + said[1:])
            return
        expected = said.removeprefix("Expected ").partition(", got ")[0]
        message = "must be " + _TYPES.sub(_in_words, expected)
        if not where and ", got " in said:
            message += f", got {describe(value)}"
        diagnostics.add((*path, *inner), message)


def _title(wanted: Any) -> str:
    """Return the title of a type with a pattern, which says in words what a text must be; empty for any other."""
    schema = _schema_of(wanted)
    return next((str(each["title"]) for each in (schema, *schema.get("anyOf", ())) if "title" in each), "")


def _options(wanted: Any) -> list[str]:
    """Return the words that a field accepts, if it accepts only a few."""
    enum = _schema_of(wanted).get("enum", ())
    return [option for option in enum if isinstance(option, str)]
