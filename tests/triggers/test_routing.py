"""Which of two versions takes an event."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.triggers.binding import ACTIVE, DRAINING
from harn.triggers.routing import Ramp, bucket, share_of
from tests.triggers.examples import spec, version

TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
SHARES = st.floats(0.0, 1.0)


class BucketTests(SynchronousTestCase):
    @given(TEXTS)
    def test_range(self, key: str) -> None:
        """Any text has a place from 0 to below 1, a lone surrogate too, and always the same."""
        self.assertTrue(0.0 <= bucket("gh", key) < 1.0)
        self.assertEqual(bucket("gh", key), bucket("gh", key))

    def test_same_in_every_process(self) -> None:
        """A place depends only on the two texts: these were computed by another process, once and for all."""
        self.assertEqual(bucket("gh", "d-1"), 0.9584473488360005)
        self.assertEqual(bucket("gh", ""), 0.9311872653963749)

    def test_triggers_differ(self) -> None:
        """Each trigger has an order of its own, and no two pairs of texts are taken for one."""
        places = {bucket(trigger_id, key) for trigger_id in ("a", "ab", "") for key in ("bc", "c", "abc")}
        self.assertEqual(len(places), 9)

    @settings(max_examples=30, derandomize=True, deadline=None)
    @given(st.integers(), st.sampled_from((0.1, 0.5, 0.9)))
    def test_evenly_spread(self, seed: int, share: float) -> None:
        """Of 2,000 random keys, as many lie below a share as the share says, within 3 points."""
        source = random.Random(seed)
        below = sum(bucket("gh", f"{source.getrandbits(64):x}") < share for _ in range(2000))
        self.assertLessEqual(abs(below / 2000 - share), 0.03)

    def test_counted_keys_are_spread_too(self) -> None:
        """Keys that follow each other are as good as random ones: 3 points at most, in any run of 2,000."""
        for first in range(0, 20_000, 2000):
            below = sum(bucket("gh", str(number)) < 0.1 for number in range(first, first + 2000))
            self.assertLessEqual(abs(below / 2000 - 0.1), 0.03)


class RampTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stable, self.fresh = version(1), version(2)
        self.ramp = Ramp(self.stable, self.fresh, 0.0)

    @given(TEXTS, SHARES, SHARES)
    def test_rising_only_moves_to_the_fresh(self, key: str, one: float, other: float) -> None:
        """A key that the fresh version takes at one share it takes at every higher one."""
        lower, higher = sorted((one, other))
        self.ramp.share = lower
        before = self.ramp.choose(key)
        self.ramp.share = higher
        after = self.ramp.choose(key)
        self.assertTrue(after is before or after is self.fresh)

    @given(TEXTS, SHARES)
    def test_sticky(self, key: str, share: float) -> None:
        """At one share one key goes to one version, whichever ramp of the trigger is asked, and however often."""
        self.ramp.share = share
        chosen = self.ramp.choose(key)
        self.assertIs(self.ramp.choose(key), chosen)
        self.assertIs(Ramp(self.stable, self.fresh, share).choose(key), chosen)

    @given(TEXTS)
    def test_none_and_all(self, key: str) -> None:
        """A share of 0 is nothing, one of 1 is everything."""
        self.ramp.share = 0.0
        self.assertIs(self.ramp.choose(key), self.stable)
        self.ramp.share = 1.0
        self.assertIs(self.ramp.choose(key), self.fresh)

    def test_only_the_share_changes(self) -> None:
        """The versions are those given, and a share is from 0 to 1."""
        for share in (-0.1, 1.1, float("nan")):
            with self.assertRaises(ValueError):
                self.ramp.share = share
            self.assertRaises(ValueError, Ramp, self.stable, self.fresh, share)
        with self.assertRaises(AttributeError):
            self.ramp.stable = self.fresh
        self.assertEqual((self.ramp.versions, self.ramp.share), ((self.stable, self.fresh), 0.0))

    def test_two_versions_of_one_trigger(self) -> None:
        """A ramp leads from one version of a trigger to another of the same."""
        self.assertRaises(ValueError, Ramp, self.stable, self.stable, 0.5)
        self.assertRaises(ValueError, Ramp, self.stable, version(2, spec("other")), 0.5)


class ShareTests(SynchronousTestCase):
    @given(SHARES)
    def test_on_a_ramp(self, share: float) -> None:
        """The two share what there is."""
        ramp = Ramp(version(1), version(2), share)
        ramps = {"gh": ramp}
        self.assertEqual(share_of(ramp.fresh, ramps), share)
        self.assertEqual(share_of(ramp.stable, ramps) + share, 1.0)

    def test_others(self) -> None:
        """A version that is alone takes everything; one that drains nothing, beside a ramp of its trigger too."""
        alone, drained = version(1, spec("other")), version(1)
        alone.state, drained.state = ACTIVE, DRAINING
        ramps = {"gh": Ramp(version(2), version(3), 0.25)}
        self.assertEqual((share_of(alone, ramps), share_of(drained, ramps), share_of(drained, {})), (1.0, 0.0, 0.0))
