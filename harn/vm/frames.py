"""
Frames between the server and an interpreter's child process, in both directions, and the packets that carry them.

A frame is one of these structs. A packet is four bytes of length (big endian) and a list of frames as MessagePack: what
one side sends in one turn of its loop is one packet, and the other side decodes it in one go. On the data channel the
server sends what is in `ToChild`; the child sends what is in `FromChild`. On the control channel, which a thread of the
child answers even while its loop is blocked, the server sends `Ping` and gets `Pong`.
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
    """
    Begin a call; see `harn.vm.interfaces.Call`. ``number`` is 1 or more.

    ``trace`` is ``traceparent``, and ``tracestate`` after a space; empty for none.
    """

    number: int
    handler: str | None
    predicate: str | None
    binding: str
    trigger_id: str
    attempt: int
    timeout: float
    replay_of: str | None
    trace: str
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

PACKET = 256 * 1024
"""Bytes from which on a packet takes no further frame: the other side begins with none before it has all of them."""
MOST_FRAMES = 1024
"""Frames of one packet."""
LARGE = 64 * 1024
"""Bytes of a body above which it is not copied into a packet, but written from where it is."""

_encode = msgspec.msgpack.Encoder().encode


class PacketWriter:
    """Frames that wait to be sent, encoded; `take` puts them together into packets."""

    def __init__(self) -> None:
        self._ready: list[bytes | memoryview] = []
        self._parts: list[bytes | memoryview] = []
        self._count = self._size = 0

    def add(self, frame: msgspec.Struct) -> None:
        """Add a frame; a text in it that UTF-8 cannot encode raises ``UnicodeEncodeError``, and nothing is added."""
        size = self._size
        if type(frame) is Begin and len(frame.body) > LARGE:
            encoded = _without_body(frame)
            self._parts += (encoded, memoryview(frame.body))
            size += len(frame.body)
        else:
            encoded = _encode(frame)
            self._parts.append(encoded)
        size += len(encoded)
        self._size = size
        self._count += 1
        if size > PACKET or self._count == MOST_FRAMES:
            self._end_packet()

    def take(self) -> list[bytes | memoryview]:
        """Return the bytes to write, in order; none wait any more."""
        if self._count:
            self._end_packet()
        ready, self._ready = self._ready, []
        return ready

    def _end_packet(self) -> None:
        joined: list[bytes | memoryview] = [
            (self._size + 3).to_bytes(4, "big"),
            b"\xdc" + self._count.to_bytes(2, "big"),  # of MessagePack: a list of so many
        ]
        for part in self._parts:
            if type(part) is memoryview:
                self._ready += (b"".join(joined), part)
                joined = []
            else:
                joined.append(part)
        if joined:
            self._ready.append(b"".join(joined))
        self._parts = []
        self._count = self._size = 0


def packet(*frames: msgspec.Struct) -> bytes:
    """Return a few small frames as they are sent."""
    writer = PacketWriter()
    for frame in frames:
        writer.add(frame)
    return b"".join(writer.take())


def _without_body(frame: Begin) -> bytes:
    """Encode a frame up to the bytes of its body, which are to follow."""
    encoded = _encode(structs.replace(frame, body=b""))
    assert encoded.endswith(b"\xc4\x00"), "the body must be the last field: an empty one is these bytes of MessagePack"
    return encoded[:-2] + b"\xc6" + len(frame.body).to_bytes(4, "big")


class FrameReader:
    """Reassembles frames from pieces of a stream of packets."""

    def __init__(self, types: Any, largest: int) -> None:
        """Expect ``types`` (a union of structs), in packets of at most ``largest`` bytes each."""
        self._decode = msgspec.msgpack.Decoder(list[types]).decode
        self._largest = largest
        self._buffer = bytearray()
        self._needed = 4

    def feed(self, data: bytes) -> list[Any]:
        """
        Add the next piece, and return the frames of the packets that are now complete.

        :raises ValueError: a packet is larger than agreed, or has something else than ``types`` (msgspec's errors are
            ValueErrors).
        """
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return []
        frames: list[Any] = []
        start, end = 0, len(buffer)
        self._needed = 4
        with memoryview(buffer) as view:
            while end - start >= 4:
                length = int.from_bytes(view[start : start + 4], "big")
                if length > self._largest:
                    raise ValueError(f"a packet must have at most {self._largest} bytes, got {length}")
                if end - start - 4 < length:
                    self._needed = 4 + length
                    break
                with view[start + 4 : start + 4 + length] as body:
                    frames += self._decode(body)
                start += 4 + length
        del buffer[:start]
        return frames
