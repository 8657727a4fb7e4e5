"""
Formatting of log records: lines for people, or one JSON object. Pure functions of a ``twisted.logger`` event.

In each form control characters are shown escaped: see `harn.model.display`. In a form for people the second and later
lines of a record are indented, so that no text of a sender or a handler can look like a record of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from string import Formatter
from typing import Any

import msgspec
from twisted.logger import LogEvent, LogLevel, formatEvent, formatEventAsClassicLogText, formatTime
from twisted.python.failure import Failure

from harn.clocks import rfc3339
from harn.model.display import REDACTED, looks_secret, visible, visible_json, visible_lines

PREFIX = "[harn] "


_OURS = frozenset(("announce",))
_BELOW = ("user_traceback", "stack")
"""Fields with lines of code: shown below a record, with the traceback of a failure, unless its message has them."""
_IN_HEAD = frozenset(
    (
        *("text", "stream", "component", "trigger_id", "trace_id", "fields", *_BELOW),
        *("attempt", "attempts", "max_attempts", "outcome", "due_at", "error_class", "failed", "dead"),
    )
)
"""Fields that ``pretty`` does not show behind the message, which says the same in words."""
INDENT = "    "
_WARNINGS = frozenset((LogLevel.warn,))
_ERRORS = frozenset((LogLevel.error, LogLevel.critical))
_COLOURS = {"debug": "2", "info": "32", "warn": "33", "error": "31", "critical": "1;31"}
_DIM = "2"
_DEEPEST = 6


def redacted(event: LogEvent) -> LogEvent:
    """Return the event with every secret field replaced; the event itself if there is none."""
    hidden = [name for name in event if not name.startswith("log_") and looks_secret(name)]
    return {**event, **dict.fromkeys(hidden, REDACTED)} if hidden else event


def plain(value: Any, depth: int = 0) -> Any:
    """
    Return a JSON value for ``value``, secrets in mappings redacted; a value without a JSON form becomes its ``str``.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # JSON has neither NaN nor infinity
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {
            str(name): REDACTED if looks_secret(str(name)) else plain(each, depth + 1) for name, each in value.items()
        }
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [plain(each, depth + 1) for each in value]
    return str(value)


def message(event: LogEvent) -> str:
    """Return the record's message without secrets."""
    return formatEvent(redacted(event))


def traceback(event: LogEvent) -> str:
    """Return the traceback of the record's failure, empty if it has none."""
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        return ""
    return failure.getTraceback().rstrip()


def lines_below(event: LogEvent) -> list[str]:
    """Return the lines that stand below the message: of fields with code, and of the record's failure."""
    named = names_in(event.get("log_format") or "")
    texts = [str(event[name]) for name in _BELOW if event.get(name) and name not in named]
    if trace := traceback(event):
        texts.append(trace)
    return [line for text in texts for line in visible_lines(text.rstrip())]


@lru_cache(maxsize=256)
def names_in(form: str) -> frozenset[str]:
    """Return the names of the fields that a format shows."""
    try:
        return frozenset(re.split(r"[.\[(]", name)[0] for _, name, _, _ in Formatter().parse(form) if name)
    except ValueError:
        return frozenset()


def said_with(event: LogEvent) -> str:
    """Return the fields that a handler logged with its message, as `` key=value``; empty if there are none."""
    given = event.get("fields")
    if not isinstance(given, Mapping) or not given:
        return ""
    return "".join(f" {name}={_short(value)}" for name, value in plain(given).items())


def fields(event: LogEvent) -> dict[str, Any]:
    """Return the fields that the caller of the logger added."""
    return {
        name: REDACTED if looks_secret(name) else plain(value)
        for name, value in event.items()
        if not name.startswith("log_") and name not in _OURS
    }


def as_json(event: LogEvent) -> str:
    """Return the record as one line of JSON: ``time level namespace message trace_id`` and its fields."""
    level = event.get("log_level", LogLevel.info)
    record: dict[str, Any] = {
        "time": rfc3339(event.get("log_time", 0.0)),
        "level": level.name,
        "namespace": event.get("log_namespace", ""),
        "message": message(event),
        "trace_id": "",
    }
    for name, value in fields(event).items():
        # Twisted's own fields of a legacy record, and a caller's fields with these names, do not replace these.
        record[name if name not in record or name == "trace_id" else f"field_{name}"] = value
    if "binding" in record:
        record.setdefault("binding_key", record["binding"])  # its name in the records of topics
    trace = traceback(event)
    if trace:
        record["traceback"] = trace
    return visible_json(msgspec.json.encode(_encodable(record)).decode("utf-8")) + "\n"


def as_text(event: LogEvent, *, times: bool = True) -> str:
    """
    Return the record as lines that begin with ``[harn] ``: its time, the worker where there are several, ``warning:``
    or ``error:`` where it is one, and the message. Announcements, which people wait for, have no time.

    :param times: False where a journal adds the time itself.
    """
    level = event.get("log_level", LogLevel.info)
    kind = "warning: " if level in _WARNINGS else "error: " if level in _ERRORS else ""
    when = f"{rfc3339(event.get('log_time', 0.0))} " if times and not event.get("announce") else ""
    who = f"{event['worker']}: " if event.get("worker") else ""
    said, *more = visible_lines(message(event) + said_with(event))
    below = [*more, *lines_below(event)]
    return f"{PREFIX}{when}{who}{kind}{said}\n" + "".join(f"{PREFIX}{INDENT}{line}\n" for line in below)


def as_pretty(event: LogEvent, *, colours: bool, times: bool = True) -> str:
    """
    Return the record in columns: time, level, part of the program, message; then the fields that this does not name.

    Further lines are indented below.

    :param times: as for `as_text`.
    """
    level = event.get("log_level", LogLevel.info)
    name = event.get("log_namespace", "")
    part = name.removeprefix("harn.") if name != "harn" else "server"
    form = event.get("log_format") or ""
    shown = names_in(form) | _IN_HEAD
    rest = "".join(f" {field}={_short(value)}" for field, value in fields(event).items() if field not in shown)
    said, *more = visible_lines(message(event) + said_with(event))
    when = f"{rfc3339(event.get('log_time', 0.0)).replace('T', ' ')} " if times else ""
    head = [when, f"{level.name.upper():<8} ", f"{visible(part):<10} ", said, visible(rest)]
    if colours:
        head[0] = _coloured(_DIM, head[0])
        head[1] = _coloured(_COLOURS[level.name], head[1])
        head[2] = _coloured(_DIM, head[2])
        head[4] = _coloured(_DIM, head[4])
    below = [*more, *lines_below(event)]
    return "".join(head).rstrip() + "\n" + "".join(f"{INDENT}{line}\n" for line in below)


def as_twistd(event: LogEvent) -> str:
    """Return the record as twistd's own log formats it, empty for one without a message."""
    text = formatEventAsClassicLogText(redacted(event), formatTime)
    if text is None:
        return ""
    said, *more = visible_lines(text.rstrip("\n"))
    named = [line for name in _BELOW if event.get(name) for line in visible_lines(str(event[name]).rstrip())]
    below = more if names_in(event.get("log_format") or "") & set(_BELOW) else [*more, *named]
    return f"{said}{visible(said_with(event))}\n" + "".join(f"\t{line.removeprefix(chr(9))}\n" for line in below)


def _coloured(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if text else ""


def _short(value: Any) -> str:
    """Return a field's value for a line: text as it is where that is one word, all else as JSON."""
    if isinstance(value, str) and value and not re.search(r"[\s=\"]", value):
        return visible(value)
    try:
        return visible(msgspec.json.encode(_encodable(value)).decode("utf-8"))
    except (TypeError, ValueError):
        return visible(str(value))


def _encodable(value: Any) -> Any:
    """Replace characters that UTF-8 cannot encode (lone surrogates of file names and bad headers)."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(name): _encodable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value
