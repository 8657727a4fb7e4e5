"""
Output and secrets of handlers: records of the server's log, bounded, without the secrets that handlers have fetched.

A secret ends up in an error's text without anybody's intent: in the URL of a request that failed, for example. A value
in another form (base64, cut in two) is not found, and very short ones are left: they are parts of ordinary words.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import structs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from harn.errors import AttemptFailed
from harn.model.display import REDACTED
from harn.model.event import decode_envelope
from harn.vm.calls import ActiveCall, error_of
from harn.vm.frames import Failed, Printed, SecretAnswer, SecretRequested
from harn.vm.interfaces import Call, ISecrets

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
        """Return the output without the values."""
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

    def __init__(self, clock: IReactorTime) -> None:
        """Start with a full allowance."""
        self._clock = clock
        self._left = float(BURST)
        self._at = clock.seconds()
        self._dropped = 0

    def _take(self, size: int) -> bool:
        now = self._clock.seconds()
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
        """Log the output of a call, with its ids."""
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
            trace_id=decode_envelope(call.envelope).trace_id if call.envelope else "",
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


class HandlerOutput:
    """
    The output of the handlers of one interpreter, and their requests for secrets.

    """

    def __init__(self, secrets: ISecrets, printing: Printing) -> None:
        self._secrets = secrets
        self._printing = printing
        self._masks = Masks()

    def printed(self, frame: Printed, running: ActiveCall | None) -> None:
        """Log the output of a call, and keep it for the call's failure; None: the call has ended."""
        frame = self._masks.printed(frame)
        if running is not None:
            running.printed(frame.text)
        self._printing.printed(frame, None if running is None else running.call)

    def error_of(self, frame: Failed) -> AttemptFailed:
        """Return the exception of a failed call, without the values of secrets."""
        return error_of(self._masks.failed(frame))

    def answer(self, asked: SecretRequested, running: ActiveCall | None) -> Deferred[SecretAnswer]:
        """Read a secret for the call that requested it; the answer has its value, or says why there is none."""
        call = None if running is None else running.call
        refusal = "the call that requested it has ended" if call is None else call.refusal_of(asked.reference)
        if call is None or refusal:
            return succeed(SecretAnswer(asked.number, None, refusal))

        def found(value: bytes) -> SecretAnswer:
            self._masks.add(value)
            return SecretAnswer(asked.number, value, "")

        def unavailable(failure: Failure) -> SecretAnswer:
            return SecretAnswer(asked.number, None, failure.getErrorMessage() or type(failure.value).__name__)

        return maybeDeferred(self._secrets.read, call.trigger_id, asked.reference).addCallbacks(found, unavailable)
