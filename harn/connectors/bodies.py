"""Reading of the few fields of a body that an event is made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec

from harn.clocks import rfc3339
from harn.errors import MediaTypeUnsupported, PayloadInvalid
from harn.model.event import is_too_deep, mended, slices

LONGEST_WORD = 256
"""Characters of a kind or an identifier; longer text is ignored."""
_LEAST_TOO_LONG = 10**LONGEST_WORD

BUILT = 256 * 1024
"""Bytes; of a body up to this size the members are split once; in a larger one each is looked up when it is read."""

FORM = "application/x-www-form-urlencoded"
MOST_FORM_FIELDS = 100
MOST_MESSAGES = 10_000
"""Messages in one request; more are refused, before a row is made of each."""

_anything = msgspec.json.Decoder()
_raw = msgspec.json.Decoder(msgspec.Raw)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_number = msgspec.json.Decoder(int | float)
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_UTF_8 = frozenset(("utf-8", "utf8", "us-ascii", "ascii"))
_LIKE_ASCII = frozenset(("iso-8859-1", "latin1", "latin-1", "iso-8859-15", "windows-1252", "cp1252"))

# Longer numbers, and the strings that may contain text like one.
_NUMBERS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|(-?[0-9][0-9.eE+-]{3,})', re.DOTALL)
# A number is out of range only with an exponent of three digits, or with some hundred digits before it. Both are looked
# for in text of which only digits, marks of exponents and what may follow a number is left, as zeros, ``e`` and commas:
# looking for constant bytes there takes a tenth of the time of an expression.
_CLASSES = bytes(
    0x30 if byte in b"0123456789" else 0x65 if byte in b"eE" else 0x2C if byte in b" \t\r\n,]}" else 0x22
    for byte in range(256)
)
_NOT_LOOKED_AT = bytes(set(range(256)) - set(b'0123456789eE \t\r\n,]}"'))
_LARGE_EXPONENT = b"0e000"
_EXPONENT = re.compile(rb"0e000+(?:,|\Z)")
_LONG = b"0" * 200
_OVERLAP = 512

# Exceptions of a decoder for a body of another shape; nesting too deep for it ends in RecursionError.
_NOT_READABLE = (ValueError, RecursionError)


class Document(msgspec.Struct, frozen=True, eq=False, gc=False):
    """
    One JSON value, of which only what `at` returns is built.

    :ivar value: of an object its members: JSON text (`msgspec.Raw`), or a form's strings; of a large object, and of any
        other value, the JSON text.
    """

    value: Any

    @property
    def is_object(self) -> bool:
        """Whether it is a JSON object."""
        return isinstance(self.value, dict) or (isinstance(self.value, msgspec.Raw) and _is_object(self.value))

    def member(self, name: str) -> Any:
        """Return one member, as `at` does."""
        value = self.value
        if type(value) is not dict:
            return self.at(name)
        found = value.get(name)
        return _built(found) if type(found) is msgspec.Raw else found

    def at(self, *path: str) -> Any:
        """
        Return the value at a path of members; None where it is absent or ``null``.

        A string or number is returned decoded. A larger value may be returned as its JSON text (`msgspec.Raw`).
        """
        value = self.value
        for step in path:
            if type(value) is dict:
                value = value.get(step)
            elif type(value) is msgspec.Raw:
                value = _member_of(value, step)
            else:
                return None
        return _built(value) if type(value) is msgspec.Raw else value


NOTHING = Document(None)
"""A document without members."""


def read_json(body: bytes) -> Document:
    """
    Read one JSON value in UTF-8, all of ``body``, as RFC 8259 allows it.

    Of a repeated member the last counts; a byte order mark is skipped, half a surrogate pair is U+FFFD.

    :raises PayloadInvalid: not JSON, or beyond a parser's limits: a number out of range, or too many levels.
    """
    try:
        return Document(_read(body))
    except _NOT_READABLE as error:
        text = mended(body)
        if text == body:
            raise PayloadInvalid(f"the body is not JSON: {_reason(body, error)}") from error
    try:
        return Document(_read(text))
    except _NOT_READABLE as error:
        raise PayloadInvalid(f"the body is not JSON: {_reason(text, error)}") from error


def read_object(body: bytes) -> Document:
    """
    Read one JSON object as `read_json` does.

    :raises PayloadInvalid: as `read_json`, or it is another value.
    """
    if len(body) <= BUILT:
        try:
            members = _members.decode(body)
            body.decode("utf-8")  # the decoder does not look into the strings that it skips
        except _NOT_READABLE:
            pass  # it may be readable once it is corrected; else the reason is to be found
        else:
            if not _may_exceed(body):
                return Document(members)
    document = read_json(body)
    if not document.is_object:
        raise PayloadInvalid("the body is not a JSON object")
    return document


def read_objects(body: bytes) -> tuple[bytes, ...]:
    """
    Return the text of each element of a JSON array, or of one JSON object, that of the object.

    :raises PayloadInvalid: as `read_json`, or it is another value, or it has more than `MOST_MESSAGES` elements.
    """
    document = read_json(body)
    if document.is_object:
        return (body,)
    try:
        found = _elements.decode(mended(body))
    except _NOT_READABLE as error:
        raise PayloadInvalid("the body must be a JSON array of objects, or one object") from error
    if len(found) > MOST_MESSAGES:
        raise PayloadInvalid(f"the body must have at most {MOST_MESSAGES} elements, got {len(found)}")
    return tuple(bytes(each) for each in found)


def read_form(body: bytes) -> dict[str, str]:
    """
    Read a form; of a repeated field the first counts.

    :raises PayloadInvalid: not a form, or with more than `MOST_FORM_FIELDS` fields.
    """
    try:
        form = parse_qs(body.decode("ascii"), True, strict_parsing=True, max_num_fields=MOST_FORM_FIELDS)
    except ValueError as error:
        raise PayloadInvalid(f"the body must be a form, as its content type is {FORM}") from error
    return {name: values[0] for name, values in form.items()}


def read_message(headers: Mapping[str, str], body: bytes) -> tuple[str, Document]:
    """
    Read a body that is a JSON object, a form, or a form whose field ``payload`` is a JSON object; return its format,
    too.

    :param headers: names in lower case.
    :return: ``json``, ``fields`` or ``form``: see `harn.model.event.parse_body`.
    :raises PayloadInvalid: any other body.
    """
    name, charset = _content_type(headers.get("content-type", ""))
    if charset is not None:
        _check_charset(charset, body)
    if name != FORM:
        return "json", read_object(body)
    fields = read_form(body)
    payload = fields.get("payload")
    return ("fields", Document(fields)) if payload is None else ("form", read_object(payload.encode()))


def media_type(headers: Mapping[str, str]) -> str:
    """Return the media type of a request in lower case, without parameters; empty if it has none."""
    return _content_type(headers.get("content-type", ""))[0]


def claims_json(headers: Mapping[str, str]) -> bool:
    """Return whether a request declares its body as JSON."""
    name = media_type(headers)
    return name in ("application/json", "text/json") or name.endswith("+json")


def check_charset(headers: Mapping[str, str], body: bytes) -> None:
    """
    Check that a JSON or form body is not declared in another charset than UTF-8.

    :raises MediaTypeUnsupported: it is, and its bytes are not the same in UTF-8.
    """
    charset = _content_type(headers.get("content-type", ""))[1]
    if charset is not None:
        _check_charset(charset, body)


def _check_charset(charset: str, body: bytes) -> None:
    """See `check_charset`."""
    if charset not in _UTF_8 and not (charset in _LIKE_ASCII and body.isascii()):
        raise MediaTypeUnsupported(f"the charset must be utf-8, got {charset[:40]!r}")


@lru_cache(maxsize=64)
def _content_type(text: str) -> tuple[str, str | None]:
    """Return media type and charset of a ``Content-Type`` in lower case; None for a missing charset."""
    found = _CHARSET.search(text)
    return text.partition(";")[0].strip().lower(), None if found is None else found[1].lower()


def word(value: Any) -> str | None:
    """Return a string that is neither empty nor longer than `LONGEST_WORD`; None for anything else."""
    return value if type(value) is str and value and len(value) <= LONGEST_WORD else None


def identifier(value: Any) -> str | None:
    """Return a string as `word` does, or a whole number in decimal digits; None for anything else."""
    if type(value) is str:
        return value if value and len(value) <= LONGEST_WORD else None
    return str(value) if type(value) is int and abs(value) < _LEAST_TOO_LONG else None


def occurred_at(value: Any) -> str | None:
    """Return an RFC 3339 time string in UTC; None for anything else."""
    seconds = unix_seconds(value)
    return None if seconds is None else moment(seconds)


def unix_seconds(value: Any) -> float | None:
    """Return an RFC 3339 time string in seconds (Unix); None for anything else."""
    if value is None or word(value) is None:
        return None
    try:
        return msgspec.convert(value, _Moment).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def moment(value: Any) -> str | None:
    """Return a time in UTC: from Unix seconds, or a string as in `occurred_at`; None for anything else."""
    if type(value) is not int and type(value) is not float:
        return occurred_at(value)
    try:
        return rfc3339(float(value))
    except (ValueError, OverflowError, OSError):
        return None


def body_digest(body: bytes) -> str:
    """Return ``sha256:`` and digits of the body: the identifier of a delivery whose provider gives it none."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _read(text: bytes) -> Any:
    """Check JSON text, and return its value in the form of `Document`."""
    # The decoder neither decodes the strings that it skips, nor looks at the size of numbers.
    if len(text) > BUILT:
        return _read_large(text)
    text.decode("utf-8")
    value: Any
    try:
        value = _members.decode(text)
    except msgspec.ValidationError:
        value = _raw.decode(text)  # not an object
    if _may_exceed(text):
        _anything.decode(text)
    return value


def _read_large(text: bytes) -> msgspec.Raw:
    """Check JSON text, as `_read` does, in steps that do not block other threads for long."""
    if is_too_deep(text):
        raise RecursionError
    text.decode("utf-8")
    whole = _raw.decode(text)
    if any(map(_may_exceed, slices(text, _OVERLAP))):
        _check_numbers(text)
    if _is_object(whole):
        _finder("").decode(whole)  # the members' names, which nothing has decoded yet
    return whole


def _built(value: msgspec.Raw) -> Any:
    """Return the value of JSON text that was checked before; a large one, or one that is nested deeply, as it is."""
    if len(value) > LONGEST_WORD * 12 + 2:
        return value
    try:
        return _anything.decode(value)
    except RecursionError:  # it was checked with fewer callers
        return value


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b"{"


def _member_of(raw: msgspec.Raw, name: str) -> msgspec.Raw | None:
    """Return a member of an object within a body that was read before; None for other values, or where it is absent."""
    try:
        found: msgspec.Raw = _finder(name).decode(raw).value
    except _NOT_READABLE:
        return None
    return found


@lru_cache(maxsize=256)
def _finder(name: str) -> msgspec.json.Decoder[Any]:
    """
    Make a decoder that finds one member, and builds none of the others.

    A dict of them would hold the interpreter's lock for as long as it takes to build it, and there may be a million.
    """
    wanted = [("value", msgspec.Raw, msgspec.Raw(b"null"))]
    return msgspec.json.Decoder(msgspec.defstruct("Wanted", wanted, rename={"value": name}))


def _reason(text: bytes, error: BaseException) -> str:
    """Return why it cannot be read, without quoting it."""
    if b"\x00" in text[:4]:
        return "it looks like UTF-16 or UTF-32; send UTF-8"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested deeper than a parser can follow"
    return str(error)


def _may_exceed(text: bytes) -> bool:
    """Return whether a piece of JSON text may hold a number that is out of range; text in strings counts, too."""
    classes = text.translate(_CLASSES, _NOT_LOOKED_AT)
    # ``in`` would first try to read the bytes as a number, and raise an exception within.
    return classes.find(_LONG) >= 0 or (classes.find(_LARGE_EXPONENT) >= 0 and _EXPONENT.search(classes) is not None)


def _check_numbers(text: bytes) -> None:
    """
    Decode every longer number of JSON text.

    :raises ValueError: one is out of range.
    """
    for match in _NUMBERS.finditer(text):
        if match[1] is not None:
            _number.decode(match[1])
