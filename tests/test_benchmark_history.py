"""Each rule of `benchmarks.history` finds what breaks it, in a history made by hand, and nothing in a sound one."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.history import ACCEPTED, DUPLICATE, NO_ANSWER, History, Loss, Request, Run, Stored, check, spreads


def request(**changes: Any) -> Request:
    """Return a request that was accepted by generation 1."""
    found = Request(
        trigger="gh", key="k", life="0.1", status=ACCEPTED, sent_at=1.0, answered_at=1.1, event_id="e", generation=1
    )
    return evolve(found, **changes)


def run(**changes: Any) -> Run:
    """Return a run of its event, to its end."""
    found = Run(event_id="e", trigger="gh", version=1, code="a", life="0.1", began_at=2.0, ended_at=2.1)
    return evolve(found, **changes)


STORED = Stored(event_id="e", trigger="gh", key="k", version=1, is_done=True)
SOUND = History(
    requests=[request(), request(sent_at=1.5, answered_at=1.6, status=DUPLICATE, event_id="")],
    runs=[run()],
    stored=[STORED],
    losses=[],
    decided=frozenset((1, 2)),
    versions={("gh", 1): 1, ("gh", 2): 2, ("gh", 3): 3},
    editions={1: "a"},
)


class RulesTests(SynchronousTestCase):
    def broken(self, **changes: Any) -> list[str]:
        """Return the rules that a history breaks."""
        return [name for name, found in check(evolve(SOUND, **changes)).items() if found]

    def test_sound(self) -> None:
        """A history in which all went well breaks no rule."""
        self.assertEqual(self.broken(), [])

    def test_lost(self) -> None:
        """An accepted event that the store does not have is lost; so is a key that was said to be there before."""
        self.assertEqual(self.broken(requests=[request(event_id="f", key="l")]), ["accepted events lost"])
        self.assertEqual(
            self.broken(requests=[request(status=DUPLICATE, key="l", event_id="")]), ["accepted events lost"]
        )
        self.assertEqual(self.broken(requests=[request(status=NO_ANSWER, key="l", event_id="", generation=0)]), [])

    def test_unfinished(self) -> None:
        """A delivery that is not done, and one that no handler has ended, are found."""
        self.assertEqual(self.broken(stored=[evolve(STORED, is_done=False)]), ["deliveries not done"])
        self.assertEqual(self.broken(runs=[run(ended_at=None)]), ["deliveries not done"])

    def test_accepted_twice(self) -> None:
        """A key with two events is found, in answers and in the store; so is an event of two keys."""
        other = evolve(STORED, event_id="f")
        self.assertEqual(self.broken(stored=[STORED, other], runs=[run(), run(event_id="f")]), ["keys accepted twice"])
        self.assertIn("keys accepted twice", self.broken(requests=[request(), request(event_id="f")]))
        self.assertIn("keys accepted twice", self.broken(requests=[request(), request(key="l")]))

    def test_handled_twice(self) -> None:
        """A run may repeat only one that was under way when its server was lost."""
        again = run(life="1.1", began_at=9.0, ended_at=9.1)
        name = ["events handled twice without a loss"]
        self.assertEqual(self.broken(runs=[run(), again]), name)
        self.assertEqual(self.broken(runs=[run(), again], losses=[Loss(life="0.1", at=3.0)]), [])
        self.assertEqual(self.broken(runs=[run(ended_at=None), again], losses=[Loss(life="0.1", at=8.0)]), [])
        self.assertEqual(self.broken(runs=[run(), again], losses=[Loss(life="0.1", at=8.0)]), name)
        self.assertEqual(self.broken(runs=[run(), again], losses=[Loss(life="1.1", at=3.0)]), name)
        self.assertEqual(self.broken(runs=[run(), again], losses=[Loss(life="0.1", at=12.0)]), name)
        fenced = Loss(life="0.1", at=1.5, until=15.0)
        self.assertEqual(self.broken(runs=[run(), again], losses=[fenced]), [])
        self.assertEqual(self.broken(runs=[run(), again], losses=[Loss(life="0.1", at=8.0, until=15.0)]), name)
        early = Loss(life="0.1", at=0.5)
        self.assertEqual(self.broken(runs=[run(), again], losses=[early]), name)

    def test_undecided(self) -> None:
        """A run of a version, and an answer of a generation, that was not decided are found."""
        name = ["runs and answers of what was not decided"]
        self.assertEqual(self.broken(runs=[run(version=3)]), name)
        self.assertEqual(self.broken(runs=[run(version=4)]), name)
        self.assertEqual(self.broken(requests=[request(generation=3)]), name)

    def test_split(self) -> None:
        """A version that ran with two sources, or with another than its generation's, is found."""
        other = run(code="b", life="1.1", began_at=3.0)
        lost = [Loss(life="0.1", at=2.5)]
        self.assertEqual(self.broken(runs=[run(), other], losses=lost), ["versions with two sources"])
        self.assertEqual(self.broken(runs=[run(code="b")]), ["versions with two sources"])
        self.assertEqual(self.broken(runs=[run(code="b", version=2)]), [])

    def test_went_back(self) -> None:
        """A server that answers with an older generation than before is found; two requests at once may cross."""
        newer = request(generation=2)
        self.assertEqual(
            self.broken(requests=[newer, request(sent_at=1.2, answered_at=1.3)]), ["servers that went back"]
        )
        self.assertEqual(self.broken(requests=[newer, request(sent_at=1.05, answered_at=1.3)]), [])
        self.assertEqual(self.broken(requests=[newer, request(sent_at=1.2, answered_at=1.3, life="1.1")]), [])

    def test_late(self) -> None:
        """A server that answers with an older generation long after the first answer of a newer one is found."""
        last = request(life="1.1", sent_at=7.0, answered_at=7.1)
        self.assertEqual(self.broken(requests=[request(generation=2), last]), ["adoptions too late"])

    def test_spreads(self) -> None:
        """The time between first and last adoption is that from the first answer to the last old request after it."""
        old = [request(life="1.1", sent_at=at, answered_at=at + 0.1) for at in (0.5, 1.05, 1.25)]
        found = spreads(evolve(SOUND, requests=[*old, request(generation=2)]))
        self.assertEqual({each: round(seconds, 3) for each, seconds in found.items()}, {1: 0.0, 2: 0.15})

    def test_unexpected(self) -> None:
        """An answer that is neither acceptance nor duplicate nor a server away is found."""
        self.assertEqual(self.broken(requests=[request(), request(status="404")]), ["unexpected answers"])
