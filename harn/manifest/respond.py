"""``respond``: the answer to a request, by the handler or always the same."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from harn.manifest.diagnostics import Diagnostics, KeyPath, describe, quote
from harn.manifest.fields import Duration, Field, Integer, Text
from harn.manifest.interfaces import JsonSchema

BY_HANDLER = "handler"
USUAL_WAIT, LONGEST_WAIT = 3.0, 30.0
"""Seconds for which a request waits for its handler, and may wait."""
_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,200}", re.ASCII)
_LONGEST_BODY = 64 * 1024


def _fault_of_body(text: str) -> tuple[str, str] | None:
    size = len(text.encode("utf-8"))
    return None if size <= _LONGEST_BODY else (f"has {size} bytes", f"{_LONGEST_BODY} is the most")


def _fault_of_content_type(text: str) -> tuple[str, str] | None:
    return None if _CONTENT_TYPE.fullmatch(text) else ("must be a media type", 'for example "application/json"')


class RespondSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to each event of a trigger. With ``by_handler`` its handler gives it, and the rest does not count."""

    by_handler: bool = False
    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"


_KEYS: dict[str, Field] = {
    "status": Integer("The status.", 200, 299),
    "body": Text("The body.", _fault_of_body),
    "content_type": Text("Its content type.", _fault_of_content_type),
}


class RespondField(Struct, frozen=True):
    """``"handler"``, or a table of status, body and content type; a `RespondSpec` once read."""

    description: str

    def read(self, value: object, path: KeyPath, diagnostics: Diagnostics) -> RespondSpec | None:
        """See `harn.manifest.fields.Field.read`."""
        if value == BY_HANDLER:
            return RespondSpec(by_handler=True)
        hint = 'write "handler", or a table, for example { status = 200, body = "ok", content_type = "text/plain" }'
        if not isinstance(value, dict):
            said = quote(value) if isinstance(value, str) else describe(value)
            diagnostics.add(path, f'must be "handler" or a table, got {said}', hint)
            return None
        for key in sorted(value.keys() - _KEYS.keys()):
            diagnostics.add((*path, key), "unknown key", f"known: {', '.join(_KEYS)}")
        read = {
            key: field.read(value[key], (*path, key), diagnostics)
            for key, field in _KEYS.items()
            if key in value and (key, value[key]) != ("body", "")  # the default
        }
        return RespondSpec(**{key: each for key, each in read.items() if each is not None})

    def json_schema(self) -> JsonSchema:
        """See `harn.manifest.fields.Field.json_schema`."""
        properties = {key: {**field.json_schema(), "description": field.description} for key, field in _KEYS.items()}
        return {
            "anyOf": [
                {"const": BY_HANDLER},
                {"type": "object", "properties": properties, "additionalProperties": False},
            ]
        }


class Within(Struct, frozen=True):
    """A length of time of at most `LONGEST_WAIT`."""

    description: str

    def read(self, value: object, path: KeyPath, diagnostics: Diagnostics) -> float | None:
        """See `harn.manifest.fields.Field.read`."""
        seconds = Duration("").read(value, path, diagnostics)
        if seconds is not None and seconds > LONGEST_WAIT:
            diagnostics.add(path, f"must be at most {LONGEST_WAIT:g}s, got {quote(str(value))}", 'write "30s" or less')
            return None
        return seconds

    def json_schema(self) -> JsonSchema:
        """See `harn.manifest.fields.Field.json_schema`."""
        return Duration("").json_schema()
