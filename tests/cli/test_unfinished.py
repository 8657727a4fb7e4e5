"""``drains`` and ``ramp``: lists, watching, and the actions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import convert, to_builtins
from twisted.trial.unittest import SynchronousTestCase

from harn.cli import unfinished
from harn.cli.client import AnswerTimedOut, OperationRefused, ServerUnreachable
from harn.cli.place import NoServer
from harn.cli.rows import format_fields
from harn.cli.unfinished import INTERVAL, changed_lines, snapshots
from harn.errors import HarnError, SecretUnavailable
from harn.reload.operations import Drain
from harn.reload.results import RampInfo
from tests.cli.looks import Looks, Waits
from tests.cli.test_commands import CommandCase

HELD: dict[str, Any] = {
    "binding": "gh@v1",
    "trigger_id": "gh",
    "version": 1,
    "generation": 3,
    "draining_since": "2026-01-02T03:04:05.000Z",
    "age_seconds": 2.5,
    "deadline": "2026-01-02T03:09:05.000Z",
    "in_flight": 3,
    "running": 2,
    "queued": 1,
    "waiting": 0,
    "moved": False,
    "oldest_event": {"event_id": "trigger_evt_1", "received_at": "2026-01-02T03:04:00.000Z"},
}

BINDING: dict[str, Any] = {
    **dict.fromkeys(("id", "provider", "kind", "handler", "binding", "handler_name", "fingerprint"), "x"),
    **dict.fromkeys(("received", "refused", "dispatched", "failed", "dlq", "in_flight", "version"), 1),
    **dict.fromkeys(("path", "draining_since")),
    **dict.fromkeys(("queued_in_store", "waiting_retries"), 0),
    "state": "active",
    "share": 100.0,
}

HELD_NOW = st.sampled_from((None, 0, 1, 2))
"""Leases of a version, None when it does not drain."""


def drain(binding: str, in_flight: int, age: float = 0.0) -> Drain:
    """Make one version that drains."""
    return convert({**HELD, "binding": binding, "in_flight": in_flight, "age_seconds": age}, Drain)


def held(binding: str = "gh@v1", event_id: str = "trigger_evt_1") -> Drain:
    """Make one version that drains and has an oldest event."""
    oldest = {**HELD["oldest_event"], "event_id": event_id}
    return convert({**HELD, "binding": binding, "oldest_event": oldest}, Drain)


def line(binding: str, in_flight: int, age: float = 0.0) -> str:
    """Return the line that says how one version drains."""
    return "- " + format_fields(to_builtins(drain(binding, in_flight, age)))


def ramp(**fields: Any) -> RampInfo:
    """Make one ramp."""
    return convert({**RampTests.RUNNING, **fields}, RampInfo)


class WatchTests(SynchronousTestCase):
    """Watching without a terminal."""

    def setUp(self) -> None:
        self.warned: list[str] = []
        self.patch(unfinished, "warn", self.warned.append)

    def test_a_line_for_each_change(self) -> None:
        """A version is shown when it is new or changed, not when it grew older; then that it has ended."""
        looks = Looks[Sequence[Drain]](
            [drain("a@v1", 2, 1.0)],
            [drain("a@v1", 2, 2.0)],
            [drain("a@v1", 1, 3.0), drain("b@v4", 7)],
            [drain("b@v4", 7, 1.0)],
            [],
        )
        waits = Waits()
        said = list(changed_lines(snapshots(looks, waits)))
        self.assertEqual(
            said,
            [
                line("a@v1", 2, 1.0),
                line("a@v1", 1, 3.0),
                line("b@v4", 7, 0.0),
                "- binding=a@v1 drained",
                "- binding=b@v4 drained",
                "nothing drains",
            ],
        )
        self.assertEqual((waits.seconds, self.warned), ([INTERVAL] * 4, []))

    def test_lines_come_at_once(self) -> None:
        """What changed is said before the next look."""
        waits = Waits()
        said = changed_lines(snapshots(Looks[Sequence[Drain]]([drain("a@v1", 2)]), waits))
        self.assertEqual((next(said), waits.seconds), (line("a@v1", 2, 0.0), []))

    def test_server_goes_away(self) -> None:
        """While a server is unavailable it is looked for, which is logged once each time; then watching continues."""
        gone, late, none = ServerUnreachable("gone"), AnswerTimedOut("late"), NoServer("none runs")
        starting = OperationRefused("starting", 503)
        held, less = [drain("a@v1", 2)], [drain("a@v1", 1)]
        looks = Looks[Sequence[Drain]](held, gone, none, starting, late, held, gone, gone, less, [])
        waits = Waits()
        said = list(changed_lines(snapshots(looks, waits)))
        self.assertEqual(
            said,
            [
                line("a@v1", 2, 0.0),
                line("a@v1", 1, 0.0),
                "- binding=a@v1 drained",
                "nothing drains",
            ],
        )
        away = "gone; trying again until it answers, or Ctrl-C"
        self.assertEqual((self.warned, waits.seconds), ([away, away], [INTERVAL] * 9))

    def test_errors_that_nothing_waits_for(self) -> None:
        """Who did not answer the first look, and who refuses to tell, ends the watching with the error."""
        failing: tuple[list[HarnError | Sequence[Drain]], ...] = (
            [ServerUnreachable("gone")],
            [OperationRefused("starting", 503)],
            [[drain("a@v1", 2)], OperationRefused("no such key", 401)],
            [[drain("a@v1", 2)], SecretUnavailable("no file of keys")],
        )
        for looks in failing:
            watched = changed_lines(snapshots(Looks[Sequence[Drain]](*looks), Waits()))
            self.assertIs(self.assertRaises(HarnError, list, watched), looks[-1])
        self.assertEqual(self.warned, [])

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(HELD_NOW, HELD_NOW), max_size=8))
    def test_the_last_word_is_true(self, counts: list[tuple[int | None, int | None]]) -> None:
        """Whatever appears and disappears: the last lines show what drains at the end, and its load."""
        both = ("a@v1", "a@v2")
        looks = [{name: held for name, held in zip(both, each, strict=True) if held is not None} for each in counts]

        def found() -> Iterator[Sequence[Drain]]:
            for look in looks:
                yield [drain(binding, count) for binding, count in look.items()]

        known: dict[str, int] = {}
        for line in changed_lines(found()):
            if line == "nothing drains":
                self.assertEqual(known, {})
                continue
            words = dict(word.split("=") for word in line.removeprefix("- ").split() if "=" in word)
            if line.endswith(" drained"):
                del known[words["binding"]]
            else:
                known[words["binding"]] = int(words["in_flight"])
        self.assertEqual(known, looks[-1] if looks else {})


class DrainsTests(CommandCase):
    """``drains``."""

    def test_list(self) -> None:
        """Each version is a line with all that is known of it; none is said as none."""
        self.serve(
            (200, {"drains": [HELD], "total": 1}),
            (200, {"drains": [], "total": 0}),
            (200, {"drains": [HELD], "total": 1}),
        )
        said = self.harn("drains").stdout
        self.assertTrue(said.startswith("Drains:\n- binding=gh@v1 trigger_id=gh version=1 generation=3 "), said)
        self.assertIn('oldest_event={"event_id":"trigger_evt_1",', said)
        self.assertEqual(self.harn("drains").stdout, "Drains:\n- none\n")
        self.assertEqual(json.loads(self.harn("drains", "--json").stdout), [HELD])

    def test_watch_ends_by_itself(self) -> None:
        """Watching ends when nothing drains; as JSON each look is a line."""
        server = self.serve((200, {"drains": [], "total": 0}), (200, {"drains": [], "total": 0}))
        self.assertEqual(self.harn("drains", "--watch").stdout, "nothing drains\n")
        self.assertEqual(self.harn("drains", "--watch", "--json").stdout, "[]\n")
        self.assertEqual([seen.target for seen in server.seen], ["/admin/drains"] * 2)

    def test_watch_over_a_restart(self) -> None:
        """A server that breaks off is said to be away on stderr, and asked again."""
        self.patch(unfinished, "INTERVAL", 0.0)
        self.serve(
            (200, {"drains": [HELD], "total": 1}),
            (503, {"status": 503, "detail": "starting"}),
            (200, {"drains": [], "total": 0}),
        )
        watched = self.harn("drains", "--watch")
        self.assertEqual(watched.exit_code, 0, watched.output)
        self.assertEqual(watched.stdout.splitlines()[1:], ["- binding=gh@v1 drained", "nothing drains"])
        self.assertEqual(
            watched.stderr.splitlines(),
            ["the server answered 503: starting; trying again until it answers, or Ctrl-C"],
        )

    def test_actions(self) -> None:
        """``--cancel`` and ``--move`` name the version, and print what happened to its deliveries."""
        moved = {"binding": "gh@v1", "moved": 4, "to": "gh@v2"}
        server = self.serve(
            (200, {"binding": "gh@v1", "cancelled": 4}), (200, moved), (200, {**moved, "to": None}), (200, moved)
        )
        said = [self.harn("drains", option, "gh@v1").stdout for option in ("--cancel", "--move", "--move")]
        self.assertEqual(
            said,
            ["gh@v1: 4 cancelled, to the dead letters\n", "gh@v1: 4 moved to gh@v2\n", "gh@v1: 4 moved\n"],
        )
        self.assertEqual(json.loads(self.harn("drains", "--move", "gh@v1", "--json").stdout), moved)
        targets = [seen.target for seen in server.seen]
        self.assertEqual(targets, ["/admin/drains/cancel", *["/admin/drains/move"] * 3])
        self.assertEqual({seen.json()["binding"] for seen in server.seen}, {"gh@v1"})

    def test_unknown(self) -> None:
        """A version that does not drain exits 1 with the server's words."""
        self.serve((404, {"status": 404, "detail": "gh@v9 does not drain; these do: gh@v1"}))
        self.assert_failed(self.harn("drains", "--cancel", "gh@v9"), "these do: gh@v1")

    def test_usage(self) -> None:
        """One thing at a time."""
        server = self.serve()
        for words in (["--watch", "--cancel", "a@v1"], ["--cancel", "a@v1", "--move", "a@v1"], ["--cancel"]):
            self.assertEqual(self.harn("drains", *words).exit_code, 2, words)
        self.assertEqual(server.seen, [])

    def test_no_server(self) -> None:
        """Without a server nothing drains that could be shown."""
        self.assert_failed(self.harn("drains"), "no server runs on")


class RampTests(CommandCase):
    """``ramp``."""

    RUNNING: dict[str, Any] = {
        "trigger_id": "gh",
        "state": "running",
        "stable": "gh@v2",
        "fresh": "gh@v3",
        "percent": 10.0,
        "step": 0.0,
        "every": None,
        "max_failures": None,
        "began_at": "2026-01-02T03:04:05.000Z",
        "next_step_at": None,
        "attempts": 3,
        "failures": 0,
    }

    def test_list(self) -> None:
        """All are listed, or that of one trigger; none is said as none."""
        other = {**self.RUNNING, "trigger_id": "x"}
        self.serve(*[(200, {"ramps": [self.RUNNING, other]})] * 3, (200, {"ramps": []}))
        self.assertEqual(len(self.harn("ramp").stdout.splitlines()), 3)
        self.assertEqual(
            self.harn("ramp", "gh").stdout,
            "Ramps:\n- trigger_id=gh state=running stable=gh@v2 fresh=gh@v3 percent=10.0 step=0.0 every=- "
            "max_failures=- began_at=2026-01-02T03:04:05.000Z next_step_at=- attempts=3 failures=0\n",
        )
        self.assertEqual(json.loads(self.harn("ramp", "--json").stdout), [self.RUNNING, other])
        self.assertEqual(self.harn("ramp").stdout, "Ramps:\n- none\n")

    def test_actions(self) -> None:
        """``--finish`` and ``--abort`` act on one trigger, or on all; the trigger may come after the flag."""
        ended = {"ramps": [{**self.RUNNING, "state": "finished"}]}
        server = self.serve(*[(200, ended)] * 4)
        for words in (["--finish", "gh"], ["gh", "--finish"], ["--finish"], ["--abort", "gh"]):
            self.assertIn("state=finished", self.harn("ramp", *words).stdout)
        finish, abort = "/admin/ramps/finish", "/admin/ramps/abort"
        self.assertEqual([seen.target for seen in server.seen], [finish, finish, finish, abort])
        self.assertEqual([seen.json().get("trigger") for seen in server.seen], ["gh", "gh", None, "gh"])

    def test_no_such_trigger(self) -> None:
        """A trigger that does not ramp has none to list; one that the server does not have is an error."""
        bindings = {"bindings": [{**BINDING, "id": f"t{index}"} for index in range(12)]}
        self.serve(*[(200, {"ramps": [self.RUNNING]}), (200, bindings)] * 2)
        self.assertEqual(self.harn("ramp", "t3").stdout, "Ramps:\n- none\n")
        self.assert_failed(self.harn("ramp", "nope"), "no trigger 'nope'; the server has: t0, t1, t10, ", ", ...")

    def test_no_such_ramp(self) -> None:
        """Where there is no ramp to end the command exits 1."""
        self.serve((409, {"status": 409, "detail": "no trigger ramps"}))
        self.assert_failed(self.harn("ramp", "--abort"), "409: no trigger ramps")

    def test_usage(self) -> None:
        """A ramp ends one way or the other."""
        self.assertEqual(self.harn("ramp", "--finish", "--abort").exit_code, 2)
