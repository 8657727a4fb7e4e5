"""Output of handlers, as records of the server's log; bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.logger import Logger, LogLevel

from harn.model.event import decode_envelope
from harn.vm.frames import Printed
from harn.vm.model import Call

log = Logger(namespace="harn.handlers")

BURST = 1024 * 1024
RATE = 128 * 1024
LONGEST_LINE = 8192

_LEVELS = {level.name: level for level in LogLevel.iterconstants()}


def _fields_of(record: Printed) -> Any:
    try:
        return msgspec.json.decode(record.fields) if record.fields else {}
    except (ValueError, RecursionError) as error:  # an object may have its own broken encoding
        return {"fields_lost": str(error)}


class Printing:
    """The output of the interpreters of one server; each record uses up part of one allowance in bytes."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Start with a full allowance; ``seconds`` returns the time."""
        self._seconds = seconds
        self._left = float(BURST)
        self._at = seconds()
        self._dropped = 0

    def _take(self, size: int) -> bool:
        now = self._seconds()
        self._left = min(BURST, self._left + max(0.0, now - self._at) * RATE)
        self._at = now
        if size > self._left:
            self._dropped += size
            return False
        self._left -= size
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            log.warn("{dropped} characters of handlers' output were dropped", dropped=dropped)
        return True

    def printed(self, record: Printed, call: Call | None) -> None:
        """Log what a call printed or logged, with its ids."""
        if not self._take(len(record.text) + len(record.fields) + 50):
            return
        level = _LEVELS.get(record.level, LogLevel.info)
        fields = _fields_of(record)
        if call is None:
            log.emit(level, "{text}", text=record.text, stream=record.stream)
            return
        log.emit(
            level,
            "{binding} {event_id}: {text}",
            text=record.text,
            stream=record.stream,
            trace_id=decode_envelope(call.envelope).trace_id,
            binding=call.binding,
            trigger_id=call.trigger_id,
            event_id=call.event_id,
            attempt=call.attempt,
            fields=fields,
        )

    def raw(self, data: bytes) -> None:
        """Log output written past Python, to descriptors 1 and 2."""
        for line in data.decode("utf-8", "replace").splitlines():
            if line and self._take(len(line) + 50):
                log.info("{text}", text=line[:LONGEST_LINE], stream="raw")
