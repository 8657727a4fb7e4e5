"""Frames: whatever the pieces, what was sent arrives; what was never sent is refused."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.vm.frames import (
    Begin,
    Cancel,
    Done,
    Failed,
    FrameReader,
    FromChild,
    SecretAnswer,
    ToChild,
    append_frame,
    append_head,
)

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
            envelope=st.binary(max_size=50),
            body=st.binary(max_size=300),
        ),
        st.builds(SecretAnswer, st.integers(0, 9), st.none() | st.binary(max_size=9), st.just("")),
    ),
    max_size=8,
)


class FrameTests(SynchronousTestCase):
    """`append_frame` and `FrameReader`."""

    @given(FRAMES, st.integers(1, 64))
    def test_any_pieces(self, frames: Any, size: Any) -> None:
        """Frames cut anywhere come out whole and in order."""
        data = bytearray()
        for frame in frames:
            append_frame(data, frame)
        reader = FrameReader(ToChild, 1000)
        found = [each for at in range(0, len(data), size) for each in reader.feed(bytes(data[at : at + size]))]
        self.assertEqual(found, frames)

    @given(FRAMES)
    def test_body_that_follows(self, frames: Any) -> None:
        """A frame whose body is sent after it is, on the wire, the same but for how the body's length is written."""
        data = bytearray()
        for frame in frames:
            if isinstance(frame, Begin):
                append_head(data, frame)
                data += frame.body
            else:
                append_frame(data, frame)
        self.assertEqual(FrameReader(ToChild, 1000).feed(bytes(data)), frames)

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
        """A frame that cannot be encoded leaves nothing behind in the buffer."""
        data = bytearray()
        append_frame(data, Done(1, b"1"))
        before = bytes(data)
        self.assertRaises(UnicodeEncodeError, append_frame, data, Failed(2, 0, "\ud800"))
        self.assertEqual(bytes(data), before)

    def test_secrets_are_not_shown(self) -> None:
        """A secret's value is not in the frame's text."""
        self.assertNotIn("value-of-it", repr(SecretAnswer(1, b"value-of-it", "")))
