"""
The parameters of an operation: where each stands in a request, how it is read and checked, how it is written.

Values that people write as text have types of their own: each reads one form, and keeps the text that it has read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, ClassVar, Self, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct
from msgspec.inspect import (
    BoolType,
    CustomType,
    Field,
    IntType,
    LiteralType,
    Metadata,
    NoneType,
    StrType,
    StructType,
    Type,
    UnionType,
    type_info,
)

from harn.model.quantities import parse_clear_share, parse_duration

_RATE = re.compile(r"(?P<count>[0-9]+(?:\.[0-9]+)?)(?:/(?P<unit>s|m|h))?", re.ASCII)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MOST_RATE = 1e9


class Written(float):
    """
    A number that is written with a unit.

    :ivar text: as it was written.
    :cvar expected: what the text must be, for messages; ``metavar``: its name in the usage of a command.
    :cvar may_be_number: whether JSON may have it as a number, without a unit.
    :cvar pattern: a regular expression of JSON Schema that the text matches.
    """

    text: str
    expected: ClassVar[str]
    metavar: ClassVar[str]
    pattern: ClassVar[str]
    may_be_number: ClassVar[bool] = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read a value.

        :raises ValueError: says what the text must be.
        """
        value = cls(cls._read(text))
        value.text = text
        return value

    @staticmethod
    def _read(text: str) -> float:
        raise NotImplementedError


class Duration(Written):
    """Seconds, written with their unit: ``0s``, ``90s``, ``5m``."""

    expected = 'a duration such as "30s"'
    metavar = "DURATION"
    pattern = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d|w)$"

    @staticmethod
    def _read(text: str) -> float:
        return parse_duration(text)


class Period(Duration):
    """Seconds, more than none."""

    expected = 'a duration over 0 such as "30s"'

    @staticmethod
    def _read(text: str) -> float:
        seconds = parse_duration(text)
        if seconds <= 0:
            raise ValueError(f"must be greater than 0, got {text!r}")
        return seconds


class Rate(Written):
    """Things a second, more than none, written with a unit: ``10/s``, ``90/m``, ``0.5/s``, or ``10`` for the first."""

    expected = 'a rate over 0 such as "10/s"'
    metavar = "N/s"
    may_be_number = True
    pattern = r"^[0-9]+(\.[0-9]+)?(/(s|m|h))?$"

    @staticmethod
    def _read(text: str) -> float:
        found = _RATE.fullmatch(text.strip())
        rate = 0.0 if found is None else float(found["count"]) / _SECONDS[found["unit"] or "s"]
        if not 0 < rate <= _MOST_RATE:
            raise ValueError(f'must be a rate over 0 such as "10/s", got {text!r}')
        return rate


class PartialShare(Written):
    """A share over 0 and under 1, written in percent: ``10%``, or ``10``."""

    expected = 'a share over 0% and under 100% such as "10%"'
    metavar = "PERCENT"
    pattern = r"^[0-9]{1,2}(\.[0-9]+)?\s*%?$"

    @staticmethod
    def _read(text: str) -> float:
        share = parse_clear_share(text)
        if not 0 < share < 1:
            raise ValueError(f"must be greater than 0% and less than 100%, got {text!r}")
        return share


class FailureShare(Written):
    """A share of at least 0 and under 1, written in percent."""

    expected = 'a share of at least 0% and under 100% such as "20%"'
    metavar = "PERCENT"
    pattern = r"^[0-9]{1,2}(\.[0-9]+)?\s*%?$"

    @staticmethod
    def _read(text: str) -> float:
        share = parse_clear_share(text)
        if share >= 1:
            raise ValueError(f"must be less than 100%, got {text!r}")
        return share


def number_of(written: Written | None) -> float | None:
    """Return such a value as a plain number."""
    return None if written is None else float(written)


def schema_of_written(kind: type) -> dict[str, Any]:
    """
    Return the JSON schema of one of these types, a ``schema_hook`` of msgspec.

    :raises NotImplementedError: ``kind`` is something else.
    """
    if issubclass(kind, Written):
        return {"type": "string", "pattern": kind.pattern}
    raise NotImplementedError(kind)


def text_of_written(value: Any) -> str:
    """
    Return the text of such a value, an ``enc_hook`` of msgspec.

    :raises NotImplementedError: ``value`` is something else.
    """
    if isinstance(value, Written):
        return value.text
    raise NotImplementedError(type(value))


BIGGEST = 2**63 - 1
"""The biggest number that the store can hold."""
_DIGITS = len(str(BIGGEST))
_TRUE, _FALSE = ("true", "1", "yes", ""), ("false", "0", "no")


class In(Enum):
    """Where a parameter stands in a request."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    BODY = "body"


IN_QUERY = Meta(extra={"in": In.QUERY})
"""Marks a parameter of a POST that stands in the query, and not in the body."""
SECRET = Meta(extra={"secret": True})
"""Marks a parameter that may be a secret: no audit record has it."""


def in_header(name: str) -> Meta:
    """Return the mark of a parameter that is the value of a header."""
    return Meta(extra={"in": In.HEADER, "key": name})


def shown_as(metavar: str) -> Meta:
    """Return the mark that gives the value of a parameter a name of its own in the usage of a command."""
    return Meta(extra={"metavar": metavar})


class Parameters(Struct, frozen=True, kw_only=True):
    """
    The parameters of one operation; each operation has a class of its own.

    Rules of several parameters stand in ``__post_init__``, which raises `ValueError`.
    """


class Parameter(Struct, frozen=True, kw_only=True):
    """
    One parameter.

    :ivar name: the attribute of the Struct.
    :ivar key: its name in a request.
    :ivar kind: its type without None.
    :ivar annotation: its type with all constraints.
    :ivar default: `UNSET` where there is none, so that it must be given.
    :ivar shown_as: the name of its value in the usage of a command, where it has one of its own.
    """

    name: str
    key: str
    place: In
    kind: Type
    annotation: Any
    default: Any
    description: str
    is_secret: bool
    shown_as: str

    @property
    def member(self) -> str:
        """Return its name in an object that holds all parameters: a header's is that of the attribute."""
        return self.name if self.place is In.HEADER else self.key

    @property
    def is_required(self) -> bool:
        """Return whether it must be given."""
        return self.default is UNSET

    @property
    def is_flag(self) -> bool:
        """Return whether it is true or false."""
        return isinstance(self.kind, BoolType)

    @property
    def written(self) -> type[Written] | None:
        """Return the type that reads it from a text, if it has one."""
        return self.kind.cls if isinstance(self.kind, CustomType) and issubclass(self.kind.cls, Written) else None

    @property
    def expected(self) -> str:
        """Return a description of valid values, for messages."""
        kind = self.kind
        if self.written is not None:
            return self.written.expected
        if isinstance(kind, IntType):
            return _expected_integer(kind)
        if isinstance(kind, LiteralType):
            return "one of " + ", ".join(str(value) for value in kind.values)
        if isinstance(kind, StrType):
            return "a text that is not empty" if kind.min_length else "a text"
        return "true or false" if isinstance(kind, BoolType) else "a JSON value"

    @property
    def metavar(self) -> str:
        """Return the name of its value in the usage of a command."""
        if self.shown_as:
            return self.shown_as
        if self.written is not None:
            return self.written.metavar
        return "N" if isinstance(self.kind, IntType) else self.name.upper()

    def read_text(self, text: str) -> Any:
        """
        Read a value out of a path, a query, a header or a command line.

        :raises ValueError: it is wrong; says what it must be.
        """
        if isinstance(self.kind, IntType) and text.isascii() and text.isdigit() and len(text) <= _DIGITS:
            return self.read(int(text))
        return self.read(text)

    def read(self, value: Any) -> Any:
        """
        Read a value out of a JSON document.

        :raises ValueError: it is wrong; says what it must be.
        """
        if self.written is not None:
            is_number = self.written.may_be_number and isinstance(value, int | float) and not isinstance(value, bool)
            if is_number or isinstance(value, str):
                return self.written.parse(str(value))
        try:
            read = msgspec.convert(self._truth_of(value) if self.is_flag else value, self.annotation)
        except msgspec.ValidationError:
            raise self._wrong(value) from None
        if isinstance(read, int) and not -BIGGEST <= read <= BIGGEST:
            raise self._wrong(value)
        return read

    def _truth_of(self, value: Any) -> Any:
        """Return the truth value that a text stands for, if it is one."""
        lower = value.lower() if isinstance(value, str) else None
        return True if lower in _TRUE else False if lower in _FALSE else value

    def _wrong(self, value: Any) -> ValueError:
        shown = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode("utf-8", "replace")
        return ValueError(f"must be {self.expected}, got {shown}")


def _expected_integer(kind: IntType) -> str:
    if kind.ge is None:
        return "an integer"
    return f"an integer of at least {kind.ge}" if kind.le is None else f"an integer from {kind.ge} to {kind.le}"


def check_path(parameters: type[Parameters], in_path: tuple[str, ...]) -> None:
    """
    Check that parameters have what their operation's path names.

    :param in_path: keys of those that stand in the path.
    :raises TypeError: one is not there; names it.
    """
    missing = set(in_path) - set(parameters.__struct_encode_fields__)
    if missing:
        raise TypeError(f"{parameters.__name__} must have what its path names, but lacks {', '.join(sorted(missing))}")


def parameters_of(parameters: type[Parameters], method: str, in_path: tuple[str, ...]) -> tuple[Parameter, ...]:
    """
    Return the parameters of an operation in the order of its Struct.

    :param in_path: keys of those that stand in the path. The others of a GET stand in the query, of a POST in the body,
        unless they are marked.
    """
    struct = type_info(parameters)
    assert isinstance(struct, StructType)
    usual = In.QUERY if method == "GET" else In.BODY
    hints = get_type_hints(parameters, include_extras=True)
    return tuple(_parameter(field, hints[field.name], usual, in_path) for field in struct.fields)


def _parameter(field: Field, annotation: Any, usual: In, in_path: tuple[str, ...]) -> Parameter:
    kind, extra, description = field.type, dict[str, Any](), ""
    while isinstance(kind, Metadata | UnionType):
        if isinstance(kind, Metadata):
            extra |= kind.extra or {}
            description = (kind.extra_json_schema or {}).get("description", description)
            kind = kind.type
        else:
            (kind,) = (each for each in kind.types if not isinstance(each, NoneType))
    place = In.PATH if field.encode_name in in_path else extra.get("in", usual)
    return Parameter(
        name=field.name,
        key=extra.get("key", field.encode_name),
        place=place,
        kind=kind,
        annotation=annotation,
        default=UNSET if field.required else field.default,
        description=description,
        is_secret=extra.get("secret", False),
        shown_as=extra.get("metavar", ""),
    )


def given(parameters: tuple[Parameter, ...], wanted: Parameters) -> Iterator[tuple[Parameter, Any]]:
    """Return each parameter that has another value than its default, with that as it stands in a request."""
    for each in parameters:
        value = getattr(wanted, each.name)
        if each.is_required or value != each.default:
            yield each, value.text if isinstance(value, Written) else value
