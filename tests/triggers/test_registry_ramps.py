"""Two versions of one trigger in force at once: the registry's view of them, and the end of a ramp."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Lifecycle, VersionEnded
from harn.manifest.model import RetrySpec
from harn.triggers.binding import ACTIVE, DRAINING, TERMINATED, BindingVersion, Stage
from harn.triggers.registry import Registry
from harn.triggers.routing import Ramp, Route
from tests.triggers.examples import NotingPool, spec, version


class RampingCase(SynchronousTestCase):
    """A registry in which ``gh`` is on a ramp from v1 to v2, and ``other`` is not."""

    def setUp(self) -> None:
        self.lifecycle = Lifecycle()
        self.registry = Registry(self.lifecycle)
        self.ended: list[str] = []
        self.lifecycle.subscribe(VersionEnded, lambda event: self.ended.append(event.binding))
        self.stable, self.fresh, self.other = version(1), version(2), version(1, spec("other"))
        self.ramp = Ramp(self.stable, self.fresh, 0.25)
        self.registry.adopt({"gh": self.stable, "other": self.other}, [], 0.0)
        self.active = {"gh": self.fresh, "other": self.other}
        self.registry.adopt(self.active, [], 1.0, {"gh": self.ramp})


class RunningTests(RampingCase):
    def test_both_are_live(self) -> None:
        """Both are active, found by their numbers and listed once, and neither ends for lack of a lease."""
        self.assertEqual((self.stable.state, self.fresh.state, self.ended), (ACTIVE, ACTIVE, []))
        self.assertEqual(list(self.registry), [self.fresh, self.other, self.stable])
        self.assertEqual(self.registry.versions("gh"), [self.stable, self.fresh])
        self.assertIs(self.registry.get("gh", 1), self.stable)
        self.assertIs(self.registry.get("gh", 2), self.fresh)
        self.assertIs(self.registry.newest("gh"), self.fresh)
        for binding in self.ramp.versions:
            binding.lease()
            binding.release()
        self.assertEqual((self.registry.draining(), self.ended), ([], []))

    def test_shares(self) -> None:
        """Each takes its share, at the moment of asking; a trigger without a ramp takes everything."""
        self.assertEqual([self.registry.share(each) for each in self.registry], [0.25, 1.0, 0.75])
        self.ramp.share = 1.0
        self.assertEqual([self.registry.share(each) for each in self.registry], [1.0, 1.0, 0.0])

    def test_retries_stay(self) -> None:
        """A retry of either runs on its own version; one of an earlier version, or of none, on the newest."""
        earlier = version(0)
        self.assertIs(self.registry.for_retry("gh", self.stable), self.stable)
        self.assertIs(self.registry.for_retry("gh", self.fresh), self.fresh)
        self.assertIs(self.registry.for_retry("gh", earlier), self.fresh)
        self.assertIs(self.registry.for_retry("gh", None), self.fresh)

    def test_other_reloads_leave_it_alone(self) -> None:
        """A reload that does not touch the trigger continues with the same ramp."""
        following = version(2, spec("other"))
        self.registry.adopt({"gh": self.fresh, "other": following}, [self.other], 2.0, {"gh": self.ramp})
        self.assertEqual(list(self.registry), [self.fresh, following, self.stable])
        self.assertEqual(self.ended, ["other@v1"])

    def test_next_version_on_the_ramp(self) -> None:
        """A newer version takes the fresh one's place; the stable one stays, the one replaced drains."""
        self.fresh.lease()
        third = version(3)
        ramp = Ramp(self.stable, third, 0.1)
        self.registry.adopt({**self.active, "gh": third}, [self.fresh], 2.0, {"gh": ramp})
        self.assertEqual((self.stable.state, self.fresh.state, third.state), (ACTIVE, DRAINING, ACTIVE))
        self.assertEqual(self.registry.versions("gh"), [self.stable, self.fresh, third])
        self.assertEqual(self.registry.share(self.fresh), 0.0)
        self.assertIs(self.registry.for_retry("gh", self.fresh), third)
        self.fresh.release()
        self.assertEqual(self.ended, ["gh@v2"])


class EndingTests(RampingCase):
    def test_aborted(self) -> None:
        """The stable version is the live one again, though its number is lower; retries of the fresh one go to it."""
        self.fresh.lease()
        active = {**self.active, "gh": self.stable}
        self.registry.end_ramp("gh", self.stable, active, 5.0)
        self.assertEqual((self.stable.state, self.fresh.state), (ACTIVE, DRAINING))
        self.assertIs(self.registry.active, active)
        self.assertIs(self.registry.newest("gh"), self.stable)
        self.assertIs(self.registry.for_retry("gh", self.fresh), self.stable)
        self.assertEqual(self.registry.versions("gh"), [self.stable, self.fresh])
        self.fresh.release()
        self.assertEqual((self.ended, self.registry.versions("gh")), (["gh@v2"], [self.stable]))

    def test_other_ramps_run_on(self) -> None:
        """One trigger's ramp ends without the others'."""
        following = version(2, spec("other"))
        ramp = Ramp(self.other, following, 0.5)
        active = {"gh": self.fresh, "other": following}
        self.registry.adopt(active, [], 2.0, {"gh": self.ramp, "other": ramp})
        self.registry.end_ramp("gh", self.fresh, active, 3.0)
        self.assertEqual(dict(self.registry.ramps), {"other": ramp})
        self.assertEqual(list(self.registry), [self.fresh, following, self.other])

    def test_no_such_ramp(self) -> None:
        """To end what does not run is refused before anything has changed."""
        before = self.registry.active
        self.assertRaises(KeyError, self.registry.end_ramp, "other", self.other, {}, 2.0)
        self.assertIs(self.registry.active, before)

    def test_pinned(self) -> None:
        """A retry that is pinned runs on its own version while that drains, and then on the winner."""
        fresh = version(3, spec(retry=RetrySpec(version="pinned")))
        self.registry.adopt({**self.active, "gh": fresh}, [self.fresh], 2.0, {"gh": Ramp(self.stable, fresh, 0.5)})
        self.stable.lease()
        self.registry.end_ramp("gh", fresh, {**self.active, "gh": fresh}, 3.0)
        self.assertIs(self.registry.for_retry("gh", self.stable), self.stable)
        self.stable.become(Stage.CLOSED)
        self.assertIs(self.registry.for_retry("gh", self.stable), fresh)


class RouteTests(RampingCase):
    def setUp(self) -> None:
        super().setUp()
        self.pool = NotingPool()
        self.receiver = self.pool.add("r", "receiver")
        self.route = Route(
            path="/x", binding=self.fresh, receiver=self.receiver, authentication="public", ramp=self.ramp
        )

    def test_a_lease_holds_both(self) -> None:
        """A request that began on a ramp may still be given to either, however the ramp ended meanwhile."""
        for finished in (True, False):
            self.setUp()
            winner, loser = (self.fresh, self.stable) if finished else (self.stable, self.fresh)
            self.route.lease()
            self.route.lease()
            self.assertEqual((self.stable.in_flight, self.fresh.in_flight, self.receiver.holders), (2, 2, 3))
            self.registry.end_ramp("gh", winner, {**self.active, "gh": winner}, 2.0)
            self.route.release()
            self.assertEqual((loser.state, self.ended), (DRAINING, []))
            self.route.release()
            self.assertEqual((loser.state, winner.state, self.ended), (TERMINATED, ACTIVE, [loser.key]))
            self.assertEqual((winner.in_flight, self.receiver.holders), (0, 1))

    def test_removed_under_a_request(self) -> None:
        """Both outlast the trigger as long as a request holds its route."""
        self.route.lease()
        self.registry.adopt({"other": self.other}, [self.stable, self.fresh], 2.0)
        self.receiver.release()
        self.assertEqual((self.stable.state, self.fresh.state, self.pool.closed), (DRAINING, DRAINING, []))
        self.route.release()
        self.assertEqual((self.pool.closed, sorted(self.ended)), (["receiver"], ["gh@v1", "gh@v2"]))

    def test_it_dies_without_the_collector(self) -> None:
        """After its end nothing refers to a ramp, its route, or the version that lost."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        dying: list[weakref.ref[Any]] = [weakref.ref(self.ramp), weakref.ref(self.route), weakref.ref(self.fresh)]
        self.route.lease()
        self.registry.end_ramp("gh", self.stable, {"gh": self.stable, "other": self.other}, 2.0)
        self.route.release()
        del self.ramp, self.route, self.fresh, self.active
        self.assertEqual([each() for each in dying], [None] * len(dying))


class Ramping(RuleBasedStateMachine):
    """One trigger's life, in any order of edits, ramps, removals, requests and retries."""

    def __init__(self) -> None:
        super().__init__()
        lifecycle = Lifecycle()
        self.registry = Registry(lifecycle)
        self.made: list[BindingVersion] = []
        self.leased: list[tuple[BindingVersion, ...]] = []
        self.waiting = 0
        self.ended: list[BindingVersion] = []
        lifecycle.subscribe(VersionEnded, self._version_ended)

    def _version_ended(self, event: VersionEnded) -> None:
        self.ended += [binding for binding in self.made if binding.key == event.binding]
        assert event.is_last == (not self.registry.versions("gh"))

    @property
    def live(self) -> BindingVersion | None:
        """The newest version of the live manifest."""
        return self.registry.active.get("gh")

    @property
    def ramp(self) -> Ramp | None:
        """The ramp that runs."""
        return self.registry.ramps.get("gh")

    def following(self) -> BindingVersion:
        """Make the next version."""
        self.made.append(version(len(self.made) + 1))
        return self.made[-1]

    @rule(ramped=st.booleans(), share=st.sampled_from((0.0, 0.1, 0.5, 1.0)), named=st.booleans())
    def edit(self, ramped: bool, share: float, named: bool) -> None:
        """Add or change the trigger, at once or on a ramp; the replaced versions are named, or left to the registry."""
        live, ramp = self.live, self.ramp
        fresh = self.following()
        stable = live if ramp is None else ramp.stable
        ramps = {"gh": Ramp(stable, fresh, share)} if ramped and stable is not None else {}
        replaced = {each for each in (live, stable) if each is not None}
        if ramps and stable is not None:
            replaced.discard(stable)
        if ramp is not None and not named:
            replaced.clear()
        self.registry.adopt({"gh": fresh}, replaced, 0.0, ramps)

    @rule()
    def touch(self) -> None:
        """Change another part of the manifest."""
        self.registry.adopt(dict(self.registry.active), [], 0.0, self.registry.ramps)

    @precondition(lambda self: self.live)
    @rule()
    def remove(self) -> None:
        """Remove the trigger."""
        assert self.live is not None
        self.registry.adopt({}, [self.live] if self.ramp is None else self.ramp.versions, 0.0)

    @precondition(lambda self: self.ramp)
    @rule(fresh=st.booleans())
    def end(self, fresh: bool) -> None:
        """Finish the ramp, or abort it."""
        assert self.ramp is not None
        winner = self.ramp.fresh if fresh else self.ramp.stable
        self.registry.end_ramp("gh", winner, {"gh": winner}, 0.0)
        assert self.live is winner

    @precondition(lambda self: self.live)
    @rule()
    def request_begins(self) -> None:
        """Acquire a request's lease, on a ramp two."""
        assert self.live is not None
        versions = (self.live,) if self.ramp is None else self.ramp.versions
        for each in versions:
            each.lease()
        self.leased.append(versions)

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def request_ends(self, data: st.DataObject) -> None:
        """Release them."""
        for each in self.leased.pop(data.draw(st.integers(0, len(self.leased) - 1))):
            each.release()

    @precondition(lambda self: self.live)
    @rule()
    def retry_waits(self) -> None:
        """Make a delivery wait for its retry."""
        self.registry.retry_waits("gh")
        self.waiting += 1

    @precondition(lambda self: self.waiting)
    @rule()
    def retry_is_due(self) -> None:
        """Make it due."""
        self.registry.retries_end("gh", 1)
        self.waiting -= 1

    @invariant()
    def nothing_is_lost_or_ended_early(self) -> None:
        """Check that every version is listed once, or has ended once; ended ones have no lease, draining ones have."""
        listed = list(self.registry)
        assert len(set(listed)) == len(listed)
        assert len(set(self.ended)) == len(self.ended)
        assert set(listed) | set(self.ended) == set(self.made)
        assert not set(listed) & set(self.ended)
        held = {each for versions in self.leased for each in versions}
        assert held <= set(listed)
        for each in self.registry.draining():
            last = not self.live and self.registry.newest("gh") is each
            assert each in held or (last and self.waiting), each
        assert sorted(listed, key=lambda each: each.version) == self.registry.versions("gh")
        assert self.registry.waiting["gh"] == self.waiting

    @invariant()
    def all_is_given_to_somebody(self) -> None:
        """Check that the shares of a live trigger add up to 1, and that only active versions have one."""
        shares = {each: self.registry.share(each) for each in self.registry}
        assert sum(shares.values()) == (1.0 if self.live else 0.0)
        assert all(each.state == ACTIVE for each, share in shares.items() if share)

    @invariant()
    def retries_have_somewhere_to_run(self) -> None:
        """Check that while anything waits there is a version for it, and of two on a ramp it is its own."""
        for own in (None, *self.registry):
            chosen = self.registry.for_retry("gh", own)
            assert chosen is None or chosen.state in (ACTIVE, DRAINING)
            assert chosen is not None or not (self.waiting or self.live)
            assert self.ramp is None or own not in self.ramp.versions or chosen is own


class RampingTests(SynchronousTestCase):
    def test_any_order(self) -> None:
        """Whatever happens in whatever order, the invariants hold."""
        profile = settings(max_examples=150, stateful_step_count=30, deadline=None)
        run_state_machine_as_test(Ramping, settings=profile)
