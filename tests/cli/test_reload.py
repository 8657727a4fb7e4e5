"""What people read of a reload: its plan, its probation, its ramps, and what it left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import convert
from twisted.trial.unittest import SynchronousTestCase

from harn.cli.output import Line
from harn.cli.reload import describe_error, describe_success, exit_status
from harn.reload.results import ReloadResult
from tests.cli.test_commands import ERROR, NOTHING, REPORT

RAMP = {"trigger_id": "gh", "stable": "gh@v2", "fresh": "gh@v3", "percent": 10.0, "step": 0.0, "every": None}
RUNNING = {
    **RAMP,
    "state": "running",
    "max_failures": None,
    "began_at": "2026-01-02T03:04:05.000Z",
    "next_step_at": None,
}
PLAN: dict[str, Any] = {
    "triggers": {
        "gh": {
            "action": "modified",
            "fields": [
                {"key": "retry.max", "old": 3, "new": 5},
                {"key": "when", "old": None, "new": "rules:wanted"},
                {"key": "match.events", "old": ["issues.*"], "new": []},
            ],
            "code": [{"path": "/srv/handlers.py", "change": "modified", "old": "sha256:1", "new": "sha256:2"}],
            "versions": {"live": "gh@v2", "next": "gh@v3"},
            "in_flight": 3,
            "running": 2,
            "queued": 0,
            "waiting": 1,
        },
        "old": {
            "action": "removed",
            "fields": [{"key": "path", "old": "/old", "new": None}],
            "code": [],
            "versions": {"live": "old@v1", "next": None},
            "queued": 7,
        },
        "new": {
            "action": "added",
            "fields": [{"key": "path", "old": None, "new": "/new"}],
            "code": [],
            "versions": {"live": None, "next": "new@v1"},
        },
    },
    "connectors": [{"trigger_id": "gh", "action": "replace", "why": ["path", "value of github/secret"]}],
    "secrets": [{"reference": "github/secret", "old": "keyed:aaaa", "new": "keyed:bbbb"}],
    "files": [{"path": "/srv/handlers.py", "change": "modified", "old": "sha256:1", "new": "sha256:2"}],
    "settings": [
        {"key": "orchestrator.pumps.max_outstanding", "old": 64, "new": 8, "applies": "reload"},
        {"key": "orchestrator.recover", "old": "auto", "new": "manual", "applies": "restart"},
    ],
    "requires_restart": ["orchestrator.recover"],
    "would_hold": True,
    "ramps": [RAMP],
    "probation": {"confirm_within": "1m", "revert_on_failures": "20%", "min": 5, "for": "2m"},
    "replay": [
        {
            "trigger_id": "gh",
            "events": 102,
            "same": 0,
            "undecided": 1,
            "different": [
                {"event_id": "e1", "kind": "k", "before": "handled", "now": "skipped"},
                {
                    "event_id": "e2",
                    "kind": "k",
                    "before": "handled",
                    "now": "predicate_error",
                    "error": "KeyError",
                },
            ],
            "more": 99,
        }
    ],
}


def texts_of(describe: Callable[[ReloadResult], Iterable[Line]], report: Mapping[str, Any]) -> list[str]:
    """Return the lines of a report without their styles."""
    return [text for text, _ in describe(convert(report, ReloadResult))]


class PlanTests(SynchronousTestCase):
    """The report of a dry run."""

    def test_everything_is_said(self) -> None:
        """Each trigger comes with its versions, counts, fields and code; then all the rest that would change."""
        self.assertEqual(
            texts_of(
                describe_success, {**REPORT, "dry_run": True, "plan": PLAN, "requires_restart": [], "draining": []}
            ),
            [
                "reload (dry run) via cli (+1 ~2 -1)",
                "  + new (new@v1)",
                "      path: - -> /new",
                "  ~ gh (gh@v2 -> gh@v3, 3 in flight, 2 running, 1 waiting)",
                "      retry.max: 3 -> 5",
                "      when: - -> rules:wanted",
                '      match.events: ["issues.*"] -> []',
                "      code /srv/handlers.py: modified",
                "  - old (old@v1, 7 queued)",
                "  removes most triggers: --watch would hold it back until an explicit reload",
                "  connector of gh: replace (path, value of github/secret)",
                "  secret github/secret: keyed:aaaa -> keyed:bbbb",
                "  setting orchestrator.pumps.max_outstanding: 64 -> 8",
                "  setting orchestrator.recover: auto -> manual (requires a restart)",
                "  file /srv/handlers.py: modified",
                "  ramp: gh@v3 takes 10 % of the new deliveries of gh, until: harn orchestrator ramp --finish gh",
                "  probation: rolled back after 1m unless it is confirmed",
                "  probation: rolled back when more than 20% of at least 5 attempts of the new versions fail within 2m",
                "  replay gh: 102 events, 101 treated differently, 1 undecided",
                "      e1 k: handled -> skipped",
                "      e2 k: handled -> predicate_error: KeyError",
                "      and 99 more",
                "  warning: slow disk",
                "  generation 7",
            ],
        )

    def test_empty_plan(self) -> None:
        """A plan in which nothing changes is its first line and the generation."""
        report = {**NOTHING, "dry_run": True, "draining": [], "requires_restart": [], "warnings": []}
        empty: dict[str, object] = {name: [] for name in ("connectors", "secrets", "files", "settings", "ramps")}
        for plan in ({}, {**empty, "triggers": {}, "would_hold": False}):
            said = texts_of(describe_success, {**report, "plan": plan})
            self.assertEqual(said, ["reload (dry run) via cli (+0 ~0 -0)", "  generation 7"])


class AftermathTests(SynchronousTestCase):
    """What is to be done, or to be known, after a reload."""

    def said(self, **more: Any) -> list[str]:
        return texts_of(describe_success, {**NOTHING, "draining": [], "requires_restart": [], "warnings": [], **more})

    def test_rollback_says_that_the_files_differ(self) -> None:
        """After a rollback the drifted files are named, and what adopts them."""
        said = self.said(recalled=3, drifted_files=["/srv/harn.toml", "/srv/handlers.py"])
        self.assertEqual(said[0], "rollback to the content of generation 3 ok via cli (+0 ~0 -0)")
        self.assertEqual(
            said[2:],
            [
                "  the files differ from the live generation (drift); a reload adopts them:",
                "    /srv/harn.toml",
                "    /srv/handlers.py",
            ],
        )
        files = {"files": [{"path": "/srv/harn.toml", "change": "modified", "old": "sha256:1", "new": "sha256:2"}]}
        dry = self.said(recalled=3, dry_run=True, plan=files, drifted_files=["/srv/harn.toml"])
        self.assertEqual(dry[1], "  file /srv/harn.toml: content modified; the file stays as it is")
        planned = self.said(recalled=3, dry_run=True, drifted_files=["/srv/harn.toml"])
        self.assertIn("would differ from the live generation", planned[2])

    def test_no_drift(self) -> None:
        """No drift is reported where the files equal the live generation."""
        self.assertEqual([line for line in self.said(recalled=3, drifted_files=[]) if "drift" in line], [])

    def test_probation(self) -> None:
        """A reload that may undo itself says when and why, and how to keep it."""
        both = {
            "generation": 7,
            "fallback": 6,
            "began_at": "2026-01-02T03:03:05.000Z",
            "confirm_by": "2026-01-02T03:04:05.000Z",
            "revert_on_failures": "20%",
            "min": 5,
            "until": "2026-01-02T03:06:05.000Z",
        }
        self.assertEqual(
            self.said(probation=both)[2:],
            [
                "  rolled back at 2026-01-02T03:04:05.000Z unless: harn orchestrator confirm 7",
                "  rolled back when more than 20% of at least 5 attempts of the new versions fail until "
                "2026-01-02T03:06:05.000Z",
            ],
        )
        self.assertEqual(self.said(probation=None)[2:], [])

    def test_renewed(self) -> None:
        """Secrets and certificates that are others now are named."""
        said = self.said(renewed=["secret github/a", "file /srv/tls.pem"])
        self.assertEqual(said[1:3], ["  read again: secret github/a", "  read again: file /srv/tls.pem"])

    def test_ramps(self) -> None:
        """A ramp says its share, its steps, or how to end it where it has none."""
        stepped = {**RUNNING, "percent": 12.5, "step": 20.0, "every": "1m"}
        self.assertIn(
            "  ramp: gh@v3 takes 12.5 % of the new deliveries of gh, 20 % more every 1m", self.said(ramps=[stepped])
        )
        self.assertIn("ramp --finish gh", self.said(ramps=[RUNNING])[1])

    def test_aborted_ramp(self) -> None:
        """After an abort there is nothing to finish: it says which version serves, why, and what to do."""
        aborted = {**RUNNING, "percent": 0.0, "state": "aborted", "why": "7 of 10 attempts failed, over 5%"}
        said = self.said(ramps=[aborted])[1]
        self.assertEqual(
            said,
            "  ramp: gh@v2 serves, gh@v3 no more (7 of 10 attempts failed, over 5%): edit the trigger to try again",
        )
        self.assertIn("gh@v3 no more (aborted): edit", self.said(ramps=[{**aborted, "why": ""}])[1])


class ErrorTests(SynchronousTestCase):
    """Reloads that did not happen."""

    def test_held(self) -> None:
        """What was held back names every trigger that would go."""
        report = {**ERROR, "status": "needs_confirmation", "stage": None, "problems": [], "removed": ["a", "b"]}
        said = texts_of(describe_error, {**report, "error": "it would remove 2 of 3 triggers"})
        self.assertEqual(
            said,
            [
                "error: reload held back: it would remove 2 of 3 triggers",
                "  - a",
                "  - b",
                "generation 6 goes on serving",
            ],
        )

    def test_no_stage(self) -> None:
        """A report that names no stage says what is wrong all the same."""
        said = texts_of(describe_error, {**ERROR, "stage": None, "problems": [], "error": "no numbers"})
        self.assertEqual(said, ["error: reload failed: no numbers", "generation 6 goes on serving"])

    def test_alike(self) -> None:
        """What is wrong in many places is a line for each, as it was found; the very same is one line."""
        missing = [
            {"file": "harn.toml", "line": line, "where": f"triggers[{line}] (t{line}): handler", "message": "no h.py"}
            for line in range(1, 14)
        ]
        other = {"file": "harn.toml", "line": 2, "where": "x", "message": "no h.py", "hint": "write it"}
        anywhere = {"file": "environment", "message": "no key"}
        problems = [missing[0], other, *missing[1:], anywhere, anywhere]
        said = texts_of(describe_error, {**ERROR, "problems": problems})
        self.assertEqual(said[0], "error: reload failed at validate: 16 problems")
        lines = [f"harn.toml:{line}: triggers[{line}] (t{line}): handler: no h.py" for line in range(1, 14)]
        lines.insert(1, "harn.toml:2: x: no h.py; write it")
        self.assertEqual(said[1:-1], [*lines, "environment: no key"])

    def test_unsettled(self) -> None:
        """Files that do not stop changing are not reported as a failed reload."""
        unsettled = {**ERROR, "status": "unsettled", "stage": None, "problems": [], "error": "restless"}
        said = texts_of(describe_error, unsettled)
        self.assertEqual(said, ["error: not adopted: restless", "generation 6 goes on serving"])

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.sampled_from(("ok", "error", "needs_confirmation", "unsettled")),
        st.lists(st.text(max_size=3), max_size=2),
        st.lists(st.text(max_size=3), max_size=2),
        st.lists(st.text(max_size=3), max_size=2),
        st.booleans(),
    )
    def test_exit_status(self, status: str, added: Any, modified: Any, removed: Any, dry_run: bool) -> None:
        """A dry run exits 0 without changes, 1 with changes, 2 with problems; a reload 0 or 1."""
        summary = {"added": added, "modified": modified, "removed": removed, "unchanged": []}
        report = {**(REPORT if status == "ok" else ERROR), "status": status}
        if status == "ok":
            report["summary"] = summary
        found = exit_status(convert(report, ReloadResult), dry_run)
        if status != "ok":
            self.assertEqual(found, 2 if dry_run else 1)
        else:
            self.assertEqual(found, int(bool(added or modified or removed)) if dry_run else 0)
