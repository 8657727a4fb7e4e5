"""``replay``, ``cancel`` and ``discard``: what they ask of a server, and how they exit."""

from __future__ import annotations

from typing import Any

from tests.cli.test_commands import CommandCase
from tests.cli.test_unfinished import BINDING

REASON = "it is done, not a dead letter"


def answer(matched: int, *skipped: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Make the answer of a server to a dry run that matched so many, of which these are skipped."""
    items = [{"event_id": each, "reason": REASON} for each in skipped]
    counts = {"matched": matched, "skipped": len(skipped), "discarded": 0, "items": items}
    return 200, {"operation": "discard", "dry_run": True, **counts, **more}


class DryRunTests(CommandCase):
    """``--dry-run``: 0 nothing would change, 1 something would, 2 problems."""

    def test_exit_status(self) -> None:
        """A selected delivery that cannot be changed is passed over; a named one is a problem."""
        refused = (409, {"detail": REASON})
        for status, got, words in (
            (1, answer(3, "a"), ("--state", "dead")),
            (0, answer(2, "a", "b"), ("--state", "done", "--state", "dead")),
            (1, answer(1), ("a", "--json")),
            (1, answer(2), ("a", "b")),
            (2, answer(2, "b"), ("a", "b")),
            (2, answer(2, "b"), ("a", "b", "--json")),
            (2, refused, ("a",)),
            (2, (404, {"detail": "no delivery has the id 'a'"}), ("a",)),
            (2, (200, {"made by": "another program"}), ("--state", "dead")),
        ):
            server = self.serve(got)
            result = self.harn("discard", *words, "--dry-run")
            self.assertEqual((result.exit_code, "error: " in result.stderr), (status, status == 2), result.output)
            self.assertIs(server.seen[0].json()["dry_run"], True)
            self.doCleanups()

    def test_claims_nothing(self) -> None:
        """It lists what matches under a title that does not say that anything was done."""
        items = [{"event_id": "a", "replayed_as": None}]
        counts = {"matched": 1, "skipped": 0, "replayed": 0, "items": items}
        self.serve((200, {"operation": "replay", "dry_run": True, **counts}))
        result = self.harn("replay", "--state", "dead", "--dry-run")
        self.assertEqual(
            result.stdout, "1 match: 1 would be replayed, 0 skipped\nDeliveries:\n- event_id=a replayed_as=-\n"
        )

    def test_nothing_matches(self) -> None:
        """Where nothing matches, a trigger that the server does not have is named; else nothing is said."""
        bindings = {"bindings": [{**BINDING, "id": "orders"}]}
        for trigger, said in (("oders", "there is no trigger 'oders'; did you mean 'orders'?\n"), ("orders", "")):
            self.serve(answer(0), (200, bindings))
            result = self.harn("discard", "--trigger", trigger, "--dry-run")
            self.assertEqual((result.exit_code, result.stderr), (0, said))
            self.doCleanups()

    def test_without_a_server(self) -> None:
        """Where there is neither a server nor a store, that is a problem of a dry run, and else an error."""
        self.assert_failed(self.harn("discard", "--state", "dead", "--dry-run"), "there is no event log", status=2)
        self.assert_failed(self.harn("discard", "--state", "dead", "--yes"), "there is no event log", status=1)


class ChangeTests(CommandCase):
    """Without ``--dry-run``."""

    def test_named_and_skipped(self) -> None:
        """One that was named and skipped is an error with its reason; others that were not are done all the same."""
        self.serve(answer(3, "b", dry_run=False, discarded=2))
        result = self.harn("discard", "a", "b", "c")
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"error: 1 of 3 were skipped; the first: b: {REASON}", result.stderr)
        self.assertIn("2 of 3 discarded, 1 skipped", result.stdout)
