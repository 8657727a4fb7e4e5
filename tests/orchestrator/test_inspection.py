"""The triggers that an inspection shows, of many."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import CIRCUIT_CLOSED, CIRCUIT_OPEN
from harn.orchestrator.inspection import Inspected, inspected
from harn.orchestrator.operations import Inspect
from harn.orchestrator.status import ServerSnapshot, ServerState
from harn.statistics.figures import Figures
from harn.store.holds import ALL
from tests.orchestrator.test_state_directory import FACTS
from tests.triggers.examples import spec, version

NAMES = ("zeta", "gh", "alpha", "beta", "mail")


def inspect(wanted: Inspect, **state: Any) -> Inspected:
    """Return an inspection of a server with triggers `NAMES`, of which ``gh`` has two versions."""
    providers = {"mail": "sendgrid"}
    bindings = [version(1, spec(name, provider=providers.get(name, "github"))) for name in NAMES]
    bindings.append(version(2, spec("gh")))
    made = ServerState(generation=1, digest="d", pinned=False, bindings=bindings, counts={}, **state)
    return inspected(ServerSnapshot(FACTS, made), wanted)


def ids(wanted: Inspect, **state: Any) -> list[str]:
    """Return the ids of the versions that are shown."""
    return [f"{each.id}@v{each.version}" for each in inspect(wanted, **state).triggers]


class InspectedTests(SynchronousTestCase):
    def test_all(self) -> None:
        """Without parameters all versions are shown: the newest in the order of the manifest, then others."""
        found = inspect(Inspect(), figures=Figures(dead={"gh": 2, "gone": 3}))
        shown = [f"{each.id}@v{each.version}" for each in found.triggers]
        self.assertEqual(shown, ["zeta@v1", "gh@v1", "alpha@v1", "beta@v1", "mail@v1", "gh@v2"])
        self.assertEqual((found.counts.triggers, found.counts.matched, found.counts.dead), (5, 5, 5))
        self.assertEqual(found.head.generation, 1)

    def test_slices(self) -> None:
        """Slices follow one another by id, and count all that match; beyond the end there is nothing."""
        self.assertEqual(ids(Inspect(limit=2)), ["alpha@v1", "beta@v1"])
        self.assertEqual(ids(Inspect(limit=2, offset=2)), ["gh@v1", "gh@v2", "mail@v1"])
        self.assertEqual(ids(Inspect(limit=2, offset=4)), ["zeta@v1"])
        beyond = inspect(Inspect(limit=2, offset=6))
        self.assertEqual((beyond.triggers, beyond.counts.matched), ((), 5))

    def test_search(self) -> None:
        """A text is looked for in ids and providers; one trigger is named exactly."""
        self.assertEqual(ids(Inspect(search="eta")), ["beta@v1", "zeta@v1"])
        self.assertEqual(ids(Inspect(search="grid")), ["mail@v1"])
        self.assertEqual(inspect(Inspect(search="eta", limit=1)).counts.matched, 2)
        self.assertEqual(ids(Inspect(search="nowhere")), [])
        self.assertEqual(ids(Inspect(trigger="gh")), ["gh@v1", "gh@v2"])
        self.assertEqual(ids(Inspect(trigger="g")), [])

    def test_busy(self) -> None:
        """Those with most to do come first; closed circuits, and a pause of the whole server, are nothing to do."""
        state: dict[str, Any] = {
            "figures": Figures(running={"zeta": 1, "gone": 4}, waiting={"beta": 7, "alpha": 0}),
            "circuits": {"mail": CIRCUIT_OPEN, "alpha": CIRCUIT_CLOSED},
        }
        busy = ["beta@v1", "zeta@v1", "gh@v1", "gh@v2", "mail@v1"]
        self.assertEqual(ids(Inspect(busy=True), **state), busy)
        self.assertEqual(ids(Inspect(busy=True, search="eta", limit=1), **state), ["beta@v1"])
        self.assertEqual(ids(Inspect(busy=True, trigger="mail"), **state), ["mail@v1"])
        self.assertEqual(ids(Inspect(busy=True, trigger="alpha"), **state), [])
        self.assertEqual(ids(Inspect(busy=True, trigger="alpha"), **state, paused={"alpha"}), ["alpha@v1"])
        self.assertEqual(ids(Inspect(busy=True), **state, paused={ALL}), busy)
        self.assertTrue(all(each.paused for each in inspect(Inspect(busy=True), **state, paused={ALL}).triggers))
