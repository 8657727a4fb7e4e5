"""A provider's table as a frozen msgspec struct: the usual `ISettingsSchema`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from zope.interface import implementer

from harn.manifest.diagnostics import describe, nearest, quote, suggest
from harn.manifest.interfaces import ISettingsSchema, SettingProblem

_Settings = TypeVar("_Settings", bound=msgspec.Struct)


@implementer(ISettingsSchema)
class StructSchema(Generic[_Settings]):
    """
    Checks a table key by key against the fields of a struct, so that every problem is found.

    Fields with ``msgspec.Meta(description=...)`` are described in the JSON schema; ``ge``, ``le``, ``pattern`` and
    the rest are enforced.
    """

    def __init__(
        self, struct: type[_Settings], check: Callable[[_Settings], Sequence[SettingProblem]] | None = None
    ) -> None:
        """
        :param check: further rules, over fields together; called only when each field alone is valid.
        """
        self._struct = struct
        self._further = check
        self._fields = {one.encode_name: one for one in msgspec.structs.fields(struct)}

    def check(self, table: Mapping[str, Any]) -> tuple[_Settings | None, Sequence[SettingProblem]]:
        """Return the settings, or every problem."""
        problems = [
            SettingProblem(key=key, message="unknown key", hint=suggest(key, self._fields))
            for key in table
            if key not in self._fields
        ]
        for key, one in self._fields.items():
            if key not in table:
                if one.required:
                    problems.append(SettingProblem(key=key, message="is missing", hint=f"write {key} = ..."))
                continue
            try:
                msgspec.convert(table[key], one.type)
            except (msgspec.ValidationError, RecursionError) as error:
                problems.append(_explain(key, table[key], one.type, error))
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

    def json_schema(self) -> dict[str, Any]:
        """Return the struct's JSON schema, self-contained, closed to other keys."""
        return {**_schema_of(self._struct), "additionalProperties": False}


def _schema_of(wanted: Any) -> dict[str, Any]:
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


def _explain(key: str, value: Any, wanted: Any, error: Exception) -> SettingProblem:
    """Translate msgspec's error in the manifest's terms."""
    said, _, where = str(error).partition(" - at `$")
    inner = where.rstrip("`")
    options = [] if inner else _options(wanted)
    if options:
        known = ", ".join(quote(option) for option in options)
        if not isinstance(value, str):
            return SettingProblem(key=key, message=f"must be a string, got {describe(value)}", hint=f"known: {known}")
        meant = nearest(value, options)
        hint = f"did you mean {quote(meant)}? known: {known}" if meant else f"known: {known}"
        return SettingProblem(key=key, message=f"{quote(value)} is not known", hint=hint)
    if not said.startswith("Expected "):
        return SettingProblem(key=key + inner, message=said[:1].lower() + said[1:])
    expected = said.removeprefix("Expected ").partition(", got ")[0]
    message = "must be " + _TYPES.sub(_in_words, expected)
    if not inner and ", got " in said:
        message += f", got {describe(value)}"
    return SettingProblem(key=key + inner, message=message)


def _options(wanted: Any) -> list[str]:
    """Return the words that a field accepts, if it accepts only a few."""
    enum = _schema_of(wanted).get("enum", ())
    return [option for option in enum if isinstance(option, str)]
