"""Which triggers have been silent for how long, against a plain model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.alerts.board import Silence
from harn.alerts.model import SilenceRecord
from tests.manifest.rules import UNHURRIED

WITHIN = 10.0
STEPS = st.lists(
    st.tuples(st.sampled_from(("accept", "drop", "watch", "look")), st.sampled_from("abc"), st.integers(0, 12)),
    max_size=50,
)


class SilenceTests(SynchronousTestCase):
    @UNHURRIED
    @given(STEPS)
    def test_model(self, steps: list[tuple[str, str, int]]) -> None:
        """Each silence is reported once, with its beginning, and ends with something accepted."""
        silence, last, reported, now = Silence(), dict[str, float](), set[str](), 1000.0
        for what, trigger_id, pause in steps:
            now += pause
            if what == "accept":
                if trigger_id in last:
                    self.assertEqual(silence.accepted(trigger_id, now), trigger_id in reported)
                    last[trigger_id] = now
                    reported.discard(trigger_id)
            elif what == "drop":
                silence.drop(trigger_id)
                last.pop(trigger_id, None)
                reported.discard(trigger_id)
            elif what == "watch":
                silence.watch([trigger_id], now)
                last.setdefault(trigger_id, now)
            else:
                found = silence.overdue(WITHIN, now)
                expected = {key: at for key, at in last.items() if key not in reported and now >= at + WITHIN}
                self.assertEqual(found, expected)
                reported |= found.keys()
            due = min((at + WITHIN for key, at in last.items() if key not in reported), default=None)
            self.assertEqual(silence.next_due(WITHIN), due)
            self.assertEqual(set(silence.triggers), last.keys())

    def test_another_limit(self) -> None:
        """With another limit what was reported counts again, from its beginning."""
        silence = Silence()
        silence.watch(["a", "b"], 0.0)
        silence.accepted("b", 5.0)
        self.assertEqual(silence.overdue(10.0, 12.0), {"a": 0.0})
        silence.reconsider()
        self.assertEqual((silence.silent, silence.next_due(100.0)), ({}, 100.0))

    def test_restored(self) -> None:
        """The time without a server does not count; what was reported stays so; what is not watched is left out."""
        silence = Silence()
        silence.watch(["a", "b", "new"], 1000.0)
        silence.restore(SilenceRecord(last={"a": 100.0, "gone": 1.0}, silent={"b": 50.0}), 700.0, 1000.0)
        self.assertEqual((silence.silent, silence.next_due(10.0)), ({"b": 50.0}, 810.0))
        self.assertEqual(set(silence.triggers), {"a", "b", "new"})
