"""``top``: its frames, and that of ``--once``."""

from __future__ import annotations

import io

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.client import OperationRefused, ServerUnreachable
from harn.cli.stats import AWAY, LATELY, activity_rows, frames, quantile
from harn.cli.terminal import watch_screen
from harn.statistics.operations import Activity, TriggerActivity
from tests.cli.looks import Looks, Waits


def activity(at: float, accepted: int = 0, *buckets: int, trigger_id: str = "gh", **changes: int) -> Activity:
    """Make a look at one trigger at a time."""
    counts = {"succeeded": accepted, "failed": 0, "running": 0, "waiting": 0, "ready": 0, "dead": 0, **changes}
    each = TriggerActivity(
        id=trigger_id,
        accepted=accepted,
        oldest_ready_seconds=None,
        next_due=None,
        handler_buckets=buckets or (0, 0, 0),
        **counts,
    )
    return Activity(at=at, generation=3, bounds=(0.1, 1.0), triggers=(each,))


class LineTests(SynchronousTestCase):
    def test_rates_and_percentiles(self) -> None:
        """Rates are of the last seconds, percentiles of all looks; counts are the present ones."""
        looks = [activity(0.0, 100, 0, 0, 5), activity(8.0, 100, 90, 0, 5), activity(10.0, 110, 90, 10, 5, dead=7)]
        (line,) = activity_rows(looks)
        self.assertEqual((line.accepted_per_second, line.done_per_second, line.dead), (5.0, 5.0, 7))
        self.assertAlmostEqual(line.p50 or 0.0, 0.1 * 50 / 90)
        self.assertAlmostEqual(line.p99 or 0.0, 0.1 + 0.9 * 0.9)

    def test_first_look(self) -> None:
        """One look gives counts and no rates; no look no line; a trigger that is new has no rate yet."""
        (line,) = activity_rows([activity(5.0, 100)])
        self.assertEqual((line.accepted_per_second, line.p50), (0.0, None))
        self.assertEqual(activity_rows([]), ())
        (line,) = activity_rows([activity(5.0, 100), activity(6.0, 7, trigger_id="new")])
        self.assertEqual(line.accepted_per_second, 0.0)

    def test_quantile(self) -> None:
        """Above the highest bound it is that bound, as Prometheus does."""
        self.assertEqual(quantile(0.5, (0.1, 1.0), (0, 0, 3)), 1.0)
        self.assertAlmostEqual(quantile(1.0, (0.1, 1.0), (3, 0, 0)) or 0.0, 0.1)
        self.assertIsNone(quantile(0.5, (0.1, 1.0), (0, 0, 0)))


class FrameTests(SynchronousTestCase):
    def test_until_a_key(self) -> None:
        """There is a frame for each look, and the last when a key was pressed."""
        found = list(frames(Looks[Activity](activity(0.0, 1), activity(1.0, 4)), Waits(2)))
        self.assertEqual([rows.rows[0].accepted_per_second for rows in found], [0.0, 3.0])  # type: ignore[union-attr]
        self.assertIn("generation 3", found[0].heading)

    def test_server_that_is_restarted(self) -> None:
        """While it is unavailable the last frame stays, and says so; its counts begin again without rates below 0."""
        look = Looks[Activity](activity(50.0, 9), ServerUnreachable("gone"), activity(2.0, 1), activity(3.0, 2))
        found = list(frames(look, Waits(4)))
        self.assertEqual(found[1].heading, AWAY)
        rates = [rows.rows[0].accepted_per_second for rows in found]  # type: ignore[union-attr]
        self.assertEqual(rates, [0.0, 0.0, 0.0, 1.0])

    def test_server_that_refuses(self) -> None:
        """A refusal ends it."""
        look = Looks[Activity](OperationRefused("no", 401))
        self.assertRaises(OperationRefused, lambda: list(frames(look, Waits(1))))

    def test_old_looks_go(self) -> None:
        """Percentiles are of the last minute alone."""
        look = Looks[Activity](
            activity(0.0, 0, 0, 9, 0), activity(LATELY + 1.0, 0, 0, 9, 0), activity(LATELY + 2.0, 0, 3, 9, 0)
        )
        *_, last = frames(look, Waits(3))
        self.assertAlmostEqual(last.rows[0].p99, 0.099)  # type: ignore[union-attr]

    def test_drawn(self) -> None:
        """A narrow screen has the trigger's name whole; the busiest trigger is the first."""
        busy = activity(1.0, trigger_id="busy-trigger", running=3, dead=12).triggers
        both = Activity(at=1.0, generation=3, bounds=(0.1, 1.0), triggers=(*activity(1.0).triggers, *busy))
        for width in (40, 100):
            stream = io.StringIO()
            watch_screen(
                frames(Looks[Activity](both), Waits(1)),
                Console(file=stream, width=width, height=20, force_terminal=True),
            )
            said = stream.getvalue()
            self.assertRegex(said, r"(?s)busy-trigger.*gh")
            self.assertNotIn("\N{HORIZONTAL ELLIPSIS}", said)
