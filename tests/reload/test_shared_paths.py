"""Triggers that share a path, over reloads: the route of a path is that of all its triggers."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.reload.case import GenerationCase
from tests.reload.world import github


class SharedPathTests(GenerationCase):
    def members(self, path: str = "/in") -> list[str]:
        """Return the versions on a path."""
        route = self.world.serving.routes.get(path)
        return [] if route is None else [member.binding.key for member in route.members]

    def test_members_come_and_go(self) -> None:
        """Each reload leaves on a path exactly the newest versions of its triggers, ordered by id."""
        a, b, c = (github(each, path="/in") for each in "abc")
        changed = github("b", path="/in", extra="timeout = '3s'")
        moved = github("a", path="/other")
        self.started(b, a)
        self.assertEqual(self.members(), ["a@v1", "b@v1"])
        for triggers, members, other in (
            ((a, changed, c), ["a@v1", "b@v2", "c@v1"], []),
            ((moved, changed, c), ["b@v2", "c@v1"], ["a@v2"]),
            ((moved, c), ["c@v1"], ["a@v2"]),
            ((a, c), ["a@v3", "c@v1"], []),
            ((github("z"),), [], []),
            ((a,), ["a@v4"], []),
        ):
            self.reloaded(*triggers)
            self.assertEqual((self.members(), self.members("/other")), (members, other))
        self.restarted()
        self.assertEqual(self.members(), ["a@v4"])

    def test_ramp_on_a_shared_path(self) -> None:
        """A ramp of one trigger leaves the others alone, and its end leaves the winner on the path."""
        a, b = (github(each, path="/in") for each in "ab")
        self.started(a, b)
        self.reloaded(a, github("b", path="/in", extra="timeout = '3s'\nrollout = { percent = 50 }"))
        route = self.world.serving.routes["/in"]
        self.assertEqual([member.ramp is None for member in route.members], [True, False])
        ramp = route.members[1].ramp
        assert ramp is not None
        self.successResultOf(Deferred.fromCoroutine(self.world.coordinator.end_ramps({ramp: ramp.fresh})))
        self.assertEqual(self.members(), ["a@v1", "b@v2"])
        self.assertEqual([member.ramp for member in self.world.serving.routes["/in"].members], [None, None])
