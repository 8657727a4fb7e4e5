"""
Formatting of log records: a line for people, or one JSON object. Pure functions of a ``twisted.logger`` event.

In each form control characters are shown escaped: see `harn.model.visible`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.logger import LogEvent, LogLevel, formatEvent, formatEventAsClassicLogText, formatTime
from twisted.python.failure import Failure

from harn.clocks import rfc3339
from harn.model.headers import REDACTED
from harn.model.secret_names import looks_secret
from harn.model.visible import visible, visible_json, visible_lines

PREFIX = "[harn] "


_OURS = frozenset(("announce",))
_WARNINGS = frozenset((LogLevel.warn,))
_ERRORS = frozenset((LogLevel.error, LogLevel.critical))
_COLOURS = {"debug": "2", "info": "32", "warn": "33", "error": "31", "critical": "31"}
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
    trace = traceback(event)
    if trace:
        record["traceback"] = trace
    return visible_json(msgspec.json.encode(_encodable(record)).decode("utf-8")) + "\n"


def as_text(event: LogEvent) -> str:
    """Return the record as lines that begin with ``[harn] ``, with ``warning:`` or ``error:`` where it is one."""
    level = event.get("log_level", LogLevel.info)
    kind = "warning: " if level in _WARNINGS else "error: " if level in _ERRORS else ""
    trace = traceback(event)
    lines = visible_lines(kind + message(event)) + (visible_lines(trace) if trace else [])
    return "".join(f"{PREFIX}{line}\n" for line in lines)


def as_pretty(event: LogEvent, *, colours: bool) -> str:
    """Return the record as a line with its time, level, namespace and fields; further lines are indented below."""
    level = event.get("log_level", LogLevel.info)
    name = f"{level.name:<8}"
    if colours:
        name = f"\x1b[{_COLOURS[level.name]}m{name}\x1b[0m"
    shown = visible(" ".join(f"{field}={value}" for field, value in fields(event).items()))
    said, *more = visible_lines(message(event))
    head = f"{rfc3339(event.get('log_time', 0.0))} {name} {event.get('log_namespace', '')}: {said}"
    trace = traceback(event)
    below = more + (visible_lines(trace) if trace else [])
    return f"{head}  {shown}".rstrip() + "\n" + "".join(f"    {line}\n" for line in below)


def as_twistd(event: LogEvent) -> str:
    """Return the record as twistd's own log formats it, empty for one without a message."""
    text = formatEventAsClassicLogText(redacted(event), formatTime)
    return "" if text is None else "".join(f"{line}\n" for line in visible_lines(text))


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
