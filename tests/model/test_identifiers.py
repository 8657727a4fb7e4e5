"""Identifiers: valid, sortable, and binding keys that can be taken apart again."""

from __future__ import annotations

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.model.identifiers import binding_key, new_event_id, new_trace_id, uuid7

MOMENTS = st.floats(min_value=0, max_value=4e9)


class Uuid7Tests(SynchronousTestCase):
    @given(MOMENTS, st.binary(min_size=10, max_size=10))
    def test_is_a_valid_version_7_uuid(self, now: float, noise: bytes) -> None:
        """Whatever the noise, the standard library reads version 7, the variant of the RFC, and the millisecond."""
        made = UUID(uuid7(now, lambda count: noise[:count]))
        self.assertEqual((made.version, made.variant), (7, RFC_4122))
        self.assertEqual(made.int >> 80, int(now * 1000))

    @given(st.lists(st.integers(min_value=0, max_value=2**47), min_size=2, unique=True))
    def test_sorts_by_time(self, milliseconds: list[int]) -> None:
        """Ids of different milliseconds sort as their times do."""
        stamps = [UUID(made).int >> 80 for made in sorted(uuid7(each / 1000) for each in milliseconds)]
        self.assertEqual(stamps, sorted(int(each / 1000 * 1000) for each in milliseconds))

    def test_every_bit_of_noise_counts(self) -> None:
        """74 bits are random: no two of a thousand ids of one moment are the same."""
        self.assertEqual(len({uuid7(1.0) for _ in range(1000)}), 1000)

    def test_prefixes(self) -> None:
        """The ids of events and traces begin with their kind."""
        self.assertTrue(new_event_id(1.0).startswith("trigger_evt_0"))
        self.assertTrue(new_trace_id(1.0).startswith("trace_0"))


class BindingKeyTests(SynchronousTestCase):
    def test_form(self) -> None:
        """A key names trigger and version."""
        self.assertEqual(binding_key("gh", 2), "gh@v2")
