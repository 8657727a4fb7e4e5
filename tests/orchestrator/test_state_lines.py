"""The text of the state file, written again where something has changed."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.observability.counts import VersionCounts
from harn.orchestrator import publish
from harn.orchestrator.publish import StateLines
from harn.orchestrator.status import ServerState, describe, entry_of
from harn.statistics.figures import Figures, StoredTotals
from harn.store.holds import ALL
from harn.store.statistics import TriggerBacklog, TriggerTotal
from harn.triggers.binding import ACTIVE, DRAINING
from harn.triggers.routing import Ramp
from tests.orchestrator.test_state_directory import FACTS, binding


class LinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.made: list[str] = []

        def counting(state: ServerState, of: Any, paused: bool) -> Any:
            self.made.append(of.key)
            return entry_of(state, of, paused)

        self.patch(publish, "entry_of", counting)
        self.lines = StateLines()
        self.first, self.second = binding("a", 1, ACTIVE), binding("b", 1, ACTIVE)
        self.counts: dict[str, VersionCounts] = {}
        self.state = ServerState(
            generation=1, digest="d", pinned=False, bindings=[self.first, self.second], counts=self.counts
        )

    def remade(self, **changes: Any) -> list[str]:
        """Write the file with these changes; return the versions whose entry was made again, and compare the text."""
        self.state = replace(self.state, **changes)
        self.made.clear()
        text = self.lines.encode(FACTS, self.state)
        made = list(self.made)
        self.assertEqual(text, describe(FACTS, self.state).encode())
        return made

    def test_each_change_of_one(self) -> None:
        """Whatever changes of a version or its trigger, its entry is made again, and no other."""
        self.assertEqual((self.remade(), self.remade()), (["a@v1", "b@v1"], []))
        total = TriggerTotal(trigger_id="a", accepted=1)
        for figures in (
            Figures(totals=StoredTotals({"a": total})),
            Figures(totals=StoredTotals({"a": evolve_total(total, accepted=2)})),
            Figures(running={"a": 1}),
            Figures(waiting={"a": 1}),
            Figures(waiting={"a": 1}, backlogs={"a": TriggerBacklog(trigger_id="a", next_due=2.0)}),
            Figures(dead={"a": 1}),
            Figures(),
        ):
            self.assertEqual((self.remade(figures=figures), self.remade()), (["a@v1"], []), figures)
        self.assertEqual((self.remade(paused={"a"}), self.remade(paused=())), (["a@v1"], ["a@v1"]))
        self.assertEqual((self.remade(circuits={"a": "open"}), self.remade(circuits={})), (["a@v1"], ["a@v1"]))
        self.first.lease()
        self.assertEqual((self.remade(), self.remade()), (["a@v1"], []))
        counts = self.counts["a@v1"] = VersionCounts()
        for name in ("received", "dispatched", "failed", "dead"):
            setattr(counts, name, 1)
            self.assertEqual((self.remade(), self.remade()), (["a@v1"], []), name)
        self.first.state = DRAINING
        self.assertEqual(self.remade(), ["a@v1"])

    def test_versions_come_and_go(self) -> None:
        """A version that is new is added, one that has ended is not there, and is made again if it comes back."""
        self.remade()
        third = binding("a", 2, ACTIVE)
        ramps = {"a": Ramp(self.first, third, 0.25)}
        self.assertEqual(self.remade(bindings=[third, self.second, self.first], ramps=ramps), ["a@v2", "a@v1"])
        self.assertEqual(self.remade(bindings=[third, self.second], ramps={}), ["a@v2"])
        self.assertEqual(self.remade(bindings=[]), [])
        self.assertEqual(self.remade(bindings=[self.second]), ["b@v1"])

    def test_all_are_paused(self) -> None:
        """A pause of the whole server is in every entry."""
        self.remade()
        self.assertEqual((self.remade(paused={ALL}), self.remade()), (["a@v1", "b@v1"], []))


def evolve_total(total: TriggerTotal, *, accepted: int) -> TriggerTotal:
    """Return a total with another number of accepted deliveries."""
    return TriggerTotal(trigger_id=total.trigger_id, accepted=accepted)
