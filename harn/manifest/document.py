"""
The manifest's text in parts, each parsed alone: one part for each trigger, and the head before them; and the program
of the child process that parses a big one, text on standard input, `ParsedText` on standard output.

A reload of ten thousand triggers that changes one then parses one. Cutting the text at lines that begin with
``[[triggers]]`` is sound when every piece, parsed alone, is whole: the head does not mention triggers, and each part
makes one trigger and nothing else. By induction the parser then stands between two statements at each cut, so no cut
lies in a multi-line string or an array, and definitions in different pieces do not meet. In every other case (a table
such as ``[orchestrator]`` after the triggers, ``triggers = [...]``, any error) the text is parsed whole: the result and
the error are then the parser's own.

The TOML parser holds the interpreter's lock from the first byte to the last, so that a thread would not help the
reactor. The child encodes each trigger on its own, so that the parent decodes them one by one. It imports this module:
tomli and msgspec are all it needs.
"""

from __future__ import annotations

import gc
import re
import signal
import sys
from datetime import date, datetime, time
from typing import Any

import msgspec
import tomli

HEADER = "[[triggers]]"
"""The beginning of a line where the text is cut."""


class Pieces(msgspec.Struct, frozen=True):
    """
    A text that is cut, or one that must not be cut (all of it is then its head).

    ``lead`` is a line feed and the head; each of ``parts`` is the text after `HEADER`, without the line feed before the
    next. So ``HEADER.join([lead, ...])`` with line feeds between is a line feed and the text.
    """

    lead: str
    parts: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The text before the first trigger."""
        return self.lead[1:]


class Malformed(msgspec.Struct, frozen=True):
    """An error of TOML syntax: why, and where (1-based; None where the parser does not say)."""

    message: str
    line: int | None = None
    column: int | None = None


class Parsed(msgspec.Struct, frozen=True):
    """
    A text's values.

    ``by_parts``: each trigger came from its own part. ``head`` has no ``triggers``, unless that is not an array.
    """

    head: dict[str, Any]
    triggers: list[Any]
    by_parts: bool


def cut(text: str) -> Pieces:
    """Cut ``text``, whose lines end in a line feed, before each line that begins with `HEADER`."""
    lead, *parts = ("\n" + text).split("\n" + HEADER)
    return Pieces(lead, tuple(parts))


def uncut(text: str) -> Pieces:
    """Return ``text`` as one piece."""
    return Pieces("\n" + text)


def parse_head(head: str) -> dict[str, Any] | None:
    """Parse the head alone; None when the text must be parsed whole."""
    try:
        tables = tomli.loads(head)
    except (tomli.TOMLDecodeError, RecursionError):
        return None
    return None if "triggers" in tables else tables


def parse_part(part: str) -> dict[str, Any] | None:
    """Parse one part alone and return its trigger; None when the text must be parsed whole."""
    try:
        tables = tomli.loads(HEADER + part)
    except (tomli.TOMLDecodeError, RecursionError):
        return None
    if len(tables) != 1:
        return None
    triggers = tables.get("triggers")
    if not isinstance(triggers, list) or len(triggers) != 1:
        return None
    trigger: dict[str, Any] = triggers[0]
    return trigger


def parse_whole(text: str) -> Parsed | Malformed:
    """Parse ``text`` as a whole."""
    try:
        tables = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        return Malformed(error.msg, error.lineno, error.colno)
    except RecursionError:
        return Malformed("arrays or tables are nested too deep")
    triggers = tables.get("triggers", [])
    if not isinstance(triggers, list):
        return Parsed(tables, [], by_parts=False)
    tables.pop("triggers", None)
    return Parsed(tables, triggers, by_parts=False)


def parse(text: str) -> Parsed | Malformed:
    """Parse ``text`` by parts where that is sound, else whole; both agree."""
    pieces = cut(text)
    head = parse_head(pieces.head)
    if head is None:
        return parse_whole(text)
    triggers: list[Any] = []
    for part in pieces.parts:
        trigger = parse_part(part)
        if trigger is None:
            return parse_whole(text)
        triggers.append(trigger)
    return Parsed(head, triggers, by_parts=True)


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
