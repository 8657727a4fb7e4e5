"""
The program of the child process that parses a big manifest: text on standard input, `ParsedText` on standard output.

The TOML parser holds the interpreter's lock from the first byte to the last, so that a thread would not help the
reactor. Each trigger is encoded on its own, so that the parent decodes them one by one.
"""

from __future__ import annotations

import gc
import re
import signal
import sys
from datetime import date, datetime, time
from typing import Any

import msgspec

from harn.manifest.document import Malformed, parse

FOR_THE_PARENT = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
"""Signals sent to the whole process group: the parent starts this program with them blocked."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d|\d\d:\d\d", re.ASCII)
_KINDS: tuple[type[Any], ...] = (datetime, date, time, int)


class ParsedText(msgspec.Struct, array_like=True, frozen=True):
    """A parsed text: each value as MessagePack, to be decoded by `decode_value`."""

    by_parts: bool
    head: msgspec.Raw
    triggers: list[msgspec.Raw]
    malformed: Malformed | None = None


def _portable(value: Any) -> Any:
    """Return ``value`` with types that MessagePack lacks (moments, integers over 64 bits) as extensions."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, datetime | date | time):
        return msgspec.msgpack.Ext(_KINDS.index(type(value)), value.isoformat().encode("ascii"))
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_KINDS.index(int), b"%x" % value)
    return value


def _restore(code: int, data: memoryview) -> Any:
    text = bytes(data).decode("ascii")
    return int(text, 16) if _KINDS[code] is int else _KINDS[code].fromisoformat(text)


_encoder = msgspec.msgpack.Encoder()
_values = msgspec.msgpack.Decoder(ext_hook=_restore)
_answers = msgspec.msgpack.Decoder(ParsedText)


def decode_parsed(data: bytes) -> ParsedText:
    """
    Decode the child's output.

    :raises msgspec.DecodeError: it is something else.
    """
    return _answers.decode(data)


def decode_value(raw: msgspec.Raw) -> Any:
    """Return one value of an answer, as the parser returned it in the child."""
    return _values.decode(raw)


def parse_to_frame(data: bytes) -> bytes:
    """
    Parse and encode.

    :param data: the manifest's text in UTF-8, lines ending in a line feed.
    """
    text = data.decode("utf-8")
    parsed = parse(text)
    if isinstance(parsed, Malformed):
        return _encoder.encode(ParsedText(False, msgspec.Raw(b"\x80"), [], parsed))
    with_moments = _MOMENT.search(text) is not None

    def encode(value: Any) -> msgspec.Raw:
        try:
            return msgspec.Raw(_encoder.encode(_portable(value) if with_moments else value))
        except OverflowError:
            return msgspec.Raw(_encoder.encode(_portable(value)))

    try:
        return _encoder.encode(
            ParsedText(parsed.by_parts, encode(parsed.head), [encode(one) for one in parsed.triggers])
        )
    except RecursionError:
        return _encoder.encode(ParsedText(False, msgspec.Raw(b"\x80"), [], Malformed("tables are nested too deep")))


def main() -> None:
    """Parse standard input, once; with the signals of `FOR_THE_PARENT` blocked."""
    gc.disable()  # Everything made here lives until the end.
    sys.stdout.buffer.write(parse_to_frame(sys.stdin.buffer.read()))
    sys.stdout.buffer.flush()
