"""
Frames between the server and an interpreter's child process, in both directions. Each frame is four bytes of length
(big endian) and one of these structs as MessagePack. On the data channel the server sends what is in `ToChild`; the
child sends what is in `FromChild`. On the control channel, which a thread of the child answers even while its loop is
blocked, the server sends `Ping` and gets `Pong`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import structs

LARGEST_FROM_CHILD = 8 * 1024 * 1024
LARGEST_RESULT = 1024 * 1024
"""The most bytes of JSON that a handler may return."""
LARGEST_TO_CHILD = 256 * 1024 * 1024

RAISED = 0
REJECTED = 1
RETRY_AFTER = 2
TIMED_OUT = 3
RESULT_INVALID = 4
RESULT_TOO_LARGE = 5
PREDICATE_RAISED = 6

BY_SCHEDULE = -1.0
"""In a `Failed`: the next attempt is when the trigger's ``retry`` says."""

LOOP_TURNS = 0
"""In a `Pong`: the loop responds."""
BLOCKED_BY_NO_CALL = -1
"""In a `Pong`: the loop is blocked by code that no call started."""


class Source(msgspec.Struct, frozen=True, array_like=True):
    """One local module."""

    name: str
    path: str
    source: bytes
    is_package: bool


class Load(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Make these modules importable; sent once, first. ``root``: the manifest's directory, for the import guard."""

    sources: list[Source]
    root: str = ""


class Resolve(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Import and look up ``module:function`` texts."""

    number: int
    references: list[str]


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Begin a call; see `harn.vm.interfaces.Call`. ``number`` is 1 or more."""

    number: int
    handler: str | None
    predicate: str | None
    binding: str
    trigger_id: str
    attempt: int
    timeout: float
    replay_of: str | None
    envelope: bytes
    body: bytes


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """End this call: its time has run out."""

    number: int


class SecretAnswer(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """A secret's value, or None and the reason."""

    number: int
    value: bytes | None
    error: str

    def __repr__(self) -> str:
        return f"<SecretAnswer {self.number}>"


class RunHooks(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """
    Run the ``on_start`` functions that have not succeeded yet, or all ``on_stop`` ones; ``limit`` seconds together.
    """

    number: int
    kind: str
    limit: float


class LogLevel(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The level of the server's log: records below it need not be sent."""

    level: str


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Check whether the loop runs."""

    number: int


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The interpreter runs, as process ``pid``; sent once, first."""

    pid: int


class Importing(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The import of this module begins: if the process ends now, the import is the cause."""

    module: str


class Flaw(msgspec.Struct, frozen=True, array_like=True):
    """The reason why a reference cannot be used."""

    reference: str
    file: str
    line: int | None
    message: str
    hint: str


class Resolved(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """The answer to `Resolve`. ``has_hooks``: a module imported so far has functions for `RunHooks`."""

    number: int
    flaws: list[Flaw]
    has_hooks: bool = False


class Done(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """A call's result as JSON (``true`` where there is only a predicate), or None when its predicate returned False."""

    number: int
    result: bytes | None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """
    A call failed. ``kind``: one of this module's; ``traceback``: the user's frames; ``seconds``: with `RETRY_AFTER`,
    `BY_SCHEDULE` where the handler named none.
    """

    number: int
    kind: int
    message: str
    traceback: str = ""
    seconds: float = 0.0


class Queued(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """All threads are in use: the call's time does not run yet."""

    number: int


class Started(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """A queued call runs now."""

    number: int


class SecretRequested(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """A handler requests a secret."""

    number: int
    call: int
    reference: str


class Printed(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """A line that a call printed (``stream`` is ``stdout`` or ``stderr``) or logged (``log``); ``call`` 0 for none."""

    call: int
    level: str
    stream: str
    text: str
    fields: bytes = b""


class HookFailure(msgspec.Struct, frozen=True, array_like=True):
    """An ``on_start`` or ``on_stop`` function that failed. ``hook``: ``module:function``; ``where``: ``file:line``."""

    hook: str
    message: str
    where: str
    traceback: str


class HooksRan(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """The answer to `RunHooks`; with number 0, for hooks of a module that was imported later."""

    number: int
    kind: str
    failures: list[HookFailure]


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """
    The answer to `Ping`.

    ``culprit`` is `LOOP_TURNS`, the number of the call whose code blocks the loop, or `BLOCKED_BY_NO_CALL`; ``where``
    is the line that blocks, for people.
    """

    number: int
    culprit: int
    where: str = ""


ToChild = Load | Resolve | Begin | Cancel | SecretAnswer | RunHooks | LogLevel
FromChild = Ready | Importing | Resolved | Done | Failed | Queued | Started | SecretRequested | Printed | HooksRan

_encode_into = msgspec.msgpack.Encoder().encode_into


def append_frame(buffer: bytearray, frame: msgspec.Struct) -> None:
    """Add an encoded frame to ``buffer``; a text in it that UTF-8 cannot encode raises ``UnicodeEncodeError``."""
    start = len(buffer)
    buffer += b"\0\0\0\0"
    try:
        _encode_into(frame, buffer, -1)
    except BaseException:
        del buffer[start:]
        raise
    buffer[start : start + 4] = (len(buffer) - start - 4).to_bytes(4, "big")


def append_head(buffer: bytearray, frame: Begin) -> None:
    """Add an encoded frame to ``buffer`` without the bytes of its body, which the caller writes after it."""
    start, size = len(buffer), len(frame.body)
    append_frame(buffer, structs.replace(frame, body=b""))
    assert buffer.endswith(b"\xc4\x00"), "the body must be the last field: an empty one is these bytes of MessagePack"
    buffer[-2:] = b"\xc6" + size.to_bytes(4, "big")
    buffer[start : start + 4] = (len(buffer) - start - 4 + size).to_bytes(4, "big")


class FrameReader:
    """Reassembles frames from pieces of a stream."""

    def __init__(self, types: Any, largest: int) -> None:
        """Expect ``types`` (a union of structs) of at most ``largest`` bytes each."""
        self._decode = msgspec.msgpack.Decoder(types).decode
        self._largest = largest
        self._buffer = bytearray()
        self._needed = 4

    def feed(self, data: bytes) -> list[Any]:
        """
        Add the next piece, and return the frames that are now complete.

        :raises ValueError: a frame is larger than agreed, or not one of ``types`` (msgspec's errors are ValueErrors).
        """
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return []
        frames = []
        start, end = 0, len(buffer)
        self._needed = 4
        with memoryview(buffer) as view:
            while end - start >= 4:
                length = int.from_bytes(view[start : start + 4], "big")
                if length > self._largest:
                    raise ValueError(f"a frame must have at most {self._largest} bytes, got {length}")
                if end - start - 4 < length:
                    self._needed = 4 + length
                    break
                with view[start + 4 : start + 4 + length] as body:
                    frames.append(self._decode(body))
                start += 4 + length
        del buffer[:start]
        return frames
