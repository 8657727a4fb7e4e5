"""Packets of frames: whatever the pieces, what was sent arrives; what was never sent is refused."""

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.vm.frames import (
    LARGE,
    MOST_FRAMES,
    PACKET,
    Begin,
    Cancel,
    Done,
    Failed,
    FrameReader,
    FromChild,
    PacketWriter,
    SecretAnswer,
    ToChild,
    packet,
)

MIB = 1 << 20

FRAMES = st.lists(
    st.one_of(
        st.builds(Cancel, st.integers(0, 2**63 - 1)),
        st.builds(
            Begin,
            number=st.integers(1, 1000),
            handler=st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
            predicate=st.none() | st.just("a:b"),
            binding=st.just("gh@v1"),
            trigger_id=st.just("gh"),
            attempt=st.integers(1, 9),
            timeout=st.floats(0, 100),
            replay_of=st.none(),
            trace=st.just(""),
            envelope=st.binary(max_size=50),
            body=st.binary(max_size=300),
        ),
        st.builds(SecretAnswer, st.integers(0, 9), st.none() | st.binary(max_size=9), st.just("")),
    ),
    max_size=8,
)


def begin(number: int, body: bytes) -> Begin:
    """Make a frame that begins a call."""
    return Begin(number, "m:f", None, "gh@v1", "gh", 1, 30.0, None, "", b"{}", body)


class FrameTests(SynchronousTestCase):
    """`PacketWriter` and `FrameReader`."""

    @given(st.lists(FRAMES, max_size=4), st.integers(1, 64))
    def test_any_pieces(self, turns: Any, size: Any) -> None:
        """Packets cut anywhere come out whole and in order."""
        data = b"".join(packet(*frames) for frames in turns)
        reader = FrameReader(ToChild, 10_000)
        found = [each for at in range(0, len(data), size) for each in reader.feed(data[at : at + size])]
        self.assertEqual(found, [frame for frames in turns for frame in frames])

    def test_large_bodies(self) -> None:
        """A large body stands between other frames as it is, and is not copied."""
        large, larger = begin(2, os.urandom(LARGE + 1)), begin(3, os.urandom(3 * MIB))
        sent: list[Any] = [begin(1, b"{}"), large, Cancel(1), larger, Cancel(2)]
        writer = PacketWriter()
        for frame in sent:
            writer.add(frame)
        pieces = writer.take()
        bodies = [piece.obj for piece in pieces if isinstance(piece, memoryview)]
        self.assertTrue(all(body is frame.body for body, frame in zip(bodies, (large, larger), strict=True)))
        self.assertEqual(FrameReader(ToChild, 4 * MIB).feed(b"".join(pieces)), sent)

    def test_packets_end(self) -> None:
        """A packet that is full takes no further frame: the other side begins before it has everything."""
        for count, body in ((3 * MOST_FRAMES, b"{}"), (30, os.urandom(PACKET // 10))):
            sent = [begin(number, body) for number in range(count)]
            data = packet(*sent)
            reader = FrameReader(ToChild, 2 * PACKET)
            self.assertGreaterEqual(len(reader.feed(data[: len(data) // 2])), count // 4)
            self.assertEqual(FrameReader(ToChild, 2 * PACKET).feed(data), sent)

    def test_nothing_waits(self) -> None:
        """What was taken does not wait any more."""
        writer = PacketWriter()
        writer.add(Cancel(1))
        self.assertEqual((len(writer.take()), writer.take()), (1, []))

    @given(st.binary(min_size=4, max_size=100))
    def test_rubbish(self, data: Any) -> None:
        """Rubbish gives frames, waits for more, or is a ValueError; nothing else."""
        try:
            for frame in FrameReader(FromChild, 1000).feed(data):
                self.assertIsInstance(frame, FromChild)
        except ValueError:
            pass

    def test_too_large(self) -> None:
        """A frame over the limit is refused at its length, before its bytes are kept."""
        self.assertRaises(ValueError, FrameReader(FromChild, 1000).feed, (1001).to_bytes(4, "big"))

    def test_unencodable(self) -> None:
        """A frame that cannot be encoded leaves the others as they are."""
        writer = PacketWriter()
        writer.add(Done(1, b"1"))
        self.assertRaises(UnicodeEncodeError, writer.add, Failed(2, 0, "\ud800"))
        writer.add(Done(3, None))
        self.assertEqual(FrameReader(FromChild, 1000).feed(b"".join(writer.take())), [Done(1, b"1"), Done(3, None)])

    def test_secrets_are_not_shown(self) -> None:
        """A secret's value is not in the frame's text."""
        self.assertNotIn("value-of-it", repr(SecretAnswer(1, b"value-of-it", "")))
