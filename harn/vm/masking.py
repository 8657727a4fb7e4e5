"""
Values of secrets that handlers have fetched, taken out of their output and their errors.

A secret ends up in an error's text without anybody's intent: in the URL of a request that failed, for example. A value
in another form (base64, cut in two) is not found, and very short ones are left: they are parts of ordinary words.
"""

from __future__ import annotations

import msgspec
from msgspec import structs

from harn.model.display import REDACTED
from harn.vm.frames import Failed, Printed

SHORTEST = 6
"""Characters of the shortest value that is taken out."""
SHORTEST_LINE = 16
"""Characters of the shortest line of a value of many lines, such as a key in PEM, that is taken out by itself."""
MOST = 256
"""Values that are held for one interpreter; the oldest makes room."""


class Masks:
    """The values that one interpreter has fetched."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def add(self, secret: bytes) -> None:
        """Remove this value from all output from now on."""
        text = secret.decode("utf-8", "replace").strip()
        lines = text.splitlines()
        parts = [text, *(line for line in lines if len(line) >= SHORTEST_LINE)] if len(lines) > 1 else [text]
        for part in parts:
            if len(part) >= SHORTEST and part not in self._values:
                self._values[part] = msgspec.json.encode(part).decode("utf-8")[1:-1]
                if len(self._values) > MOST:
                    del self._values[next(iter(self._values))]

    def printed(self, frame: Printed) -> Printed:
        """Return what was printed or logged without the values."""
        if not self._values:
            return frame
        text, fields = self._without(frame.text), frame.fields
        if fields:
            fields = self._without(fields.decode("utf-8", "replace")).encode("utf-8", "replace")
        return structs.replace(frame, text=text, fields=fields)

    def failed(self, frame: Failed) -> Failed:
        """Return a failure without the values in its message and traceback."""
        if not self._values:
            return frame
        return structs.replace(frame, message=self._without(frame.message), traceback=self._without(frame.traceback))

    def _without(self, text: str) -> str:
        for value, as_json in self._values.items():
            if value in text:
                text = text.replace(value, REDACTED)
            if as_json != value and as_json in text:
                text = text.replace(as_json, REDACTED)
        return text
