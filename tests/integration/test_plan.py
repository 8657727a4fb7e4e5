"""``plan`` on a real server: it says all that a reload would do; the reload does that; the plan changes nothing."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

from harn.testing.server import GITHUB_SECRET, Answer, ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text

ONE_AT_A_TIME = "[orchestrator.pumps]\nmax_outstanding = 1\n"
HELD = trigger_text("gh", handler="handlers:held")
FAILING = """
from harn.handlers import RetryAfter


def later(event, context):
    raise RetryAfter(600)
"""


MOVES = re.compile(r"harn_http_|process_|harn_store_|harn_disk_|_age_seconds")
"""Metrics that change with time, whatever the server does."""


class PlanCase(ServerCase):
    """A server, and all that can be seen of it from outside."""

    def plan(self, server: ServerProcess, query: str = "") -> dict[str, Any]:
        """Request a plan; give the report."""
        answer = server.admin("POST", f"/admin/plan{query}")
        self.assertEqual(answer.status, 200, answer)
        report: dict[str, Any] = answer.json()
        self.assertIs(report["dry_run"], True)
        return report

    def likeness(self, server: ServerProcess) -> dict[str, Any]:
        """Return every row of the store, every metric but those of `MOVES`, the children, and the state file."""
        with closing(sqlite3.connect(f"file:{server.state_dir / 'events.sqlite'}?mode=ro", uri=True)) as store:
            tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {name: sorted(map(repr, store.execute(f"SELECT * FROM {name}"))) for name in tables}
            # Of the server's own row the last column is its heartbeat.
            rows["servers"] = sorted(map(repr, store.execute("SELECT incarnation, pid, host, started_at FROM servers")))
            # Totals of triggers are written every few seconds.
            rows["standing"] = [row for row in rows["standing"] if "totals_counted" not in row]
            rows = {name: found for name, found in rows.items() if name not in ("trigger_totals", "refusals")}
        metrics = server.request("GET", "/metrics").body.decode().splitlines()
        return {
            "store": rows,
            "metrics": [line for line in metrics if not MOVES.search(line)],
            "children": server.children(),
            "state": (server.state_dir / "orchestrator-state.json").read_bytes(),
        }

    def wait_work(self, server: ServerProcess, trigger_id: str, **counts: int) -> None:
        """Wait until a plan shows this work under way for a trigger that it changes."""

        def told() -> bool:
            change = self.plan(server)["plan"]["triggers"][trigger_id]
            return all(change[name] == count for name, count in counts.items())

        wait_until(told, f"{trigger_id} to have {counts}")


class NothingChangesTests(PlanCase):
    """What a plan leaves as it was: everything."""

    def test_nothing_changes(self) -> None:
        """Store, metrics, processes and state file are the same after plans of all kinds, amid deliveries."""
        self.write_handlers(more=FAILING)
        later = trigger_text("later", handler="handlers:later")
        self.write_manifest(HELD, later, head=ONE_AT_A_TIME)
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/later", delivery="w1"), "later")
        self.wait_records(server, "trigger.attempts", 1)
        for key in ("d1", "d2", "d3"):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        self.wait_begun("d1")
        self.write_handlers("two", FAILING + "\n\ndef wanted(event):\n    return False\n")
        wanted = trigger_text("gh", handler="handlers:held", extra='filter = "event.kind"\nwhen = "handlers:wanted"')
        self.write_manifest(wanted, trigger_text("new"), head=ONE_AT_A_TIME)
        wait_until(lambda: len(server.children()) == 2, "the interpreter and its spare")
        self.wait_work(server, "gh", in_flight=3, running=1, queued=2, waiting=0)
        self.wait_work(server, "later", in_flight=0, running=0, queued=0, waiting=1)
        before = self.likeness(server)
        for query in ("", "?replay=10", "?ramp=10%25&confirm_within=5m", "?revert_on_failures=5%25", "?force=true"):
            changed = self.plan(server, query)["summary"]
            self.assertEqual(changed, {"added": ["new"], "modified": ["gh"], "removed": ["later"], "unchanged": []})
            self.assertEqual(self.likeness(server), before, query)
        self.assertEqual(server.reload("?dry_run=true&replay=10").status, 200)
        self.assertEqual(self.likeness(server), before)
        self.assertEqual(server.admin("POST", "/admin/rollback?dry_run=true", {"generation": 1}).status, 200)
        self.assertEqual(server.admin("POST", "/admin/plan", {}, {"If-Match": '"7-none"'}).status, 412)
        for text in ("nonsense [", trigger_text("gh", handler="handlers:nothing"), trigger_text("gh", secret="no")):
            self.write("harn.toml", text)
            self.assertEqual(server.admin("POST", "/admin/plan").status, 422)
            self.assertEqual(self.likeness(server), before, text)
        self.assertEqual(self.begun(), ["d1"])
        self.release()
        versions = {(each["key"], each["version"]) for each in self.wait_handled("d1", "d2", "d3")}
        self.assertEqual(versions, {("d1", "one"), ("d2", "one"), ("d3", "one")})

    def test_a_plan_that_is_cut_off(self) -> None:
        """A plan whose import hangs answers 504 in time, and leaves no process and nothing else behind."""
        self.write_manifest(head='[orchestrator.reload]\ntimeout = "3s"\n')
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_records(server, "trigger.outbox", 1)
        wait_until(lambda: len(server.children()) == 2, "the interpreter and its spare")
        before = self.likeness(server)
        self.write_handlers("two", "time.sleep(600)\n")
        answer = server.admin("POST", "/admin/plan")
        self.assertEqual((answer.status, answer.json()["stage"]), (504, "resolve"), answer)
        wait_until(lambda: server.children() == before["children"], "the process of the plan to be gone")
        self.assertEqual(self.likeness(server), before)


class ContentTests(PlanCase):
    """What a plan says."""

    def test_everything_is_told(self) -> None:
        """Fields and settings old and new, code by file, connectors and why, secrets as digests, needs of a restart."""
        secret = self.write("secret", "first-value\n")
        self.environ["HARN_SECRET_GITHUB_ROTATING_FILE"] = str(secret)
        self.write("deep.py", "VALUE = 1\n")
        self.write("other.py", "import deep\n\ndef on_event(event):\n    return deep.VALUE\n")
        self.write_handlers()
        gh, other = trigger_text("gh", secret="rotating"), trigger_text("other", handler="other:on_event")
        self.write_manifest(gh, other, trigger_text("gone"), head=ONE_AT_A_TIME)
        server = self.serve()
        secret.write_text("second-value\n")
        self.write("deep.py", "VALUE = 2\n")
        gh = trigger_text(
            "gh", secret="rotating", extra='path = "/hooks/gh"\ntimeout = "7s"\n[triggers.retry]\nmax = 3'
        )
        head = '[orchestrator]\nrecover = "manual"\npumps.max_outstanding = 8\n'
        self.write_manifest(gh, other, trigger_text("new"), head=head)
        done = self.orchestrator("plan")
        self.assertEqual(done.status, 1, done)
        report = self.plan(server)
        plan = report["plan"]
        changed = {"added": ["new"], "modified": ["gh", "other"], "removed": ["gone"], "unchanged": []}
        self.assertEqual(report["summary"], changed)
        triggers = plan["triggers"]
        fields = {each["key"]: (each["old"], each["new"]) for each in triggers["gh"]["fields"]}
        self.assertEqual(fields["timeout"], ("30s", "7s"))
        self.assertEqual(fields["path"], ("/triggers/gh", "/hooks/gh"))
        self.assertEqual(fields["retry.max"][1], 3)
        self.assertEqual(triggers["gh"]["code"], [])
        self.assertEqual(triggers["gh"]["versions"], {"live": "gh@v1", "next": "gh@v2"})
        self.assertEqual(triggers["new"]["versions"], {"live": None, "next": "new@v1"})
        self.assertEqual(triggers["gone"]["versions"], {"live": "gone@v1", "next": None})
        [code] = triggers["other"]["code"]
        self.assertEqual((code["path"], code["change"]), (str(self.directory / "deep.py"), "modified"))
        self.assertNotEqual(code["old"], code["new"])
        connectors = {each["trigger_id"]: (each["action"], each["why"]) for each in plan["connectors"]}
        self.assertEqual(connectors["gh"], ("replace", ["path", "value of github/rotating"]))
        self.assertEqual((connectors["new"][0], connectors["gone"][0]), ("start", "stop"))
        self.assertNotIn("other", connectors)
        [rotated] = plan["secrets"]
        self.assertEqual(rotated["reference"], "github/rotating")
        self.assertNotEqual(rotated["old"], rotated["new"])
        settings = {each["key"]: (each["old"], each["new"], each["applies"]) for each in plan["settings"]}
        self.assertEqual(settings["orchestrator.pumps.max_outstanding"], (1, 8, "reload"))
        self.assertEqual(settings["orchestrator.recover"], ("auto", "manual", "restart"))
        self.assertEqual(plan["requires_restart"], ["orchestrator.recover"])
        self.assertFalse(plan["would_hold"])
        for line in (
            "timeout: 30s -> 7s",
            "path: /triggers/gh -> /hooks/gh",
            f"code {self.directory / 'deep.py'}: modified",
            "connector of gh: replace (path, value of github/rotating)",
            "secret github/rotating: keyed:",
            "setting orchestrator.pumps.max_outstanding: 1 -> 8",
            "orchestrator.recover: auto -> manual (requires a restart)",
        ):
            self.assertIn(line, done.stdout)
        for text in (done.stdout, str(report), server.stderr):
            for value in ("first-value", "second-value", GITHUB_SECRET.decode()):
                self.assertNotIn(value, text)

    def test_a_reload_does_what_the_plan_says(self) -> None:
        """Summary, changes, versions, connectors' routes and what needs a restart are those of the real reload."""
        self.write_manifest(HELD, trigger_text("gone"), trigger_text("same", handler="apart:on_event"))
        self.write("apart.py", "def on_event(event):\n    return None\n")
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.write_handlers("two")
        self.write_manifest(HELD, trigger_text("new"), trigger_text("same", handler="apart:on_event"))
        planned = self.plan(server)
        reloaded = server.reload().json()
        for name in ("status", "summary", "changes", "requires_restart", "warnings"):
            self.assertEqual(planned[name], reloaded[name], name)
        self.assertEqual((planned["generation"], reloaded["generation"]), (1, 2))
        expected = {each["versions"]["next"] for each in planned["plan"]["triggers"].values()} - {None}
        active = {each["binding"] for each in server.bindings() if each["state"] == "active"}
        self.assertEqual(active, expected | {"same@v1"})
        in_flight = planned["plan"]["triggers"]["gh"]["in_flight"]
        self.assertEqual(reloaded["draining"], [{"binding": "gh@v1", "in_flight": in_flight}])
        after = self.plan(server)
        self.assertEqual((after["summary"]["unchanged"], after["plan"]["triggers"]), (["gh", "new", "same"], {}))
        self.release()

    def test_probation_is_told(self) -> None:
        """A plan says what would undo what it adopts; where nothing would be adopted, there is nothing to undo."""
        server = self.serve()
        words = ("plan", "--confirm-within", "60s", "--revert-on-failures", "0.5%")
        self.assertNotIn("probation", self.orchestrator(*words).stdout)
        self.write_handlers("two")
        said = self.orchestrator(*words).stdout
        self.assertIn("probation: rolled back after 1m unless it is confirmed", said)
        self.assertIn("more than 0.5% of at least 20 attempts of the new versions fail within 2m", said)
        self.assertNotIn("probation", self.plan(server)["plan"])

    def test_would_hold(self) -> None:
        """A plan shows that ``--watch`` would hold it back, and which triggers would ramp."""
        self.write_manifest(*(trigger_text(f"t{index}") for index in range(3)))
        server = self.serve()
        self.write_manifest(trigger_text("t0", extra='timeout = "7s"\nrollout = { percent = 10 }'))
        plan = self.plan(server)["plan"]
        self.assertTrue(plan["would_hold"])
        [ramp] = plan["ramps"]
        self.assertEqual((ramp["stable"], ramp["fresh"], ramp["percent"]), ("t0@v1", "t0@v2", 10.0))
        self.assertEqual(server.admin("GET", "/admin/ramps").json()["ramps"], [])


class ProblemTests(PlanCase):
    """Plans of what would fail."""

    def test_every_problem(self) -> None:
        """A plan of a broken manifest exits 2 and lists every problem by its line; without a server it exits 2, too."""
        server = self.serve()
        self.write_manifest(
            trigger_text("gh", extra='filtre = "x"'),
            trigger_text("two", extra='path = "/health"'),
            trigger_text("three", extra='timeout = "soon"'),
        )
        done = self.orchestrator("plan")
        self.assertEqual((done.status, done.stdout), (2, ""), done)
        self.assertIn("3 problems", done.stderr)
        for pattern in (
            r"harn\.toml:\d+: triggers\[0\] \(gh\): filtre: .*filter",
            r"harn\.toml:\d+: triggers\[1\] \(two\): path: .*/health",
            r"harn\.toml:\d+: triggers\[2\] \(three\): timeout: .*soon",
        ):
            self.assertRegex(done.stderr, pattern)
        self.assertIn("generation 1 goes on serving", done.stderr)
        live = server.generation()
        self.assertEqual((live["generation"], live["last_failed"]), (1, None))
        self.assertEqual(server.terminate(), 0)
        nobody = self.orchestrator("plan")
        self.assertEqual((nobody.status, nobody.stdout), (2, ""), nobody)
        self.assertIn("error: ", nobody.stderr)

    def test_bad_requests(self) -> None:
        """Options that mean nothing are refused in words, and so is a plan without credentials."""
        server = self.serve()
        for query in ("?replay=0", "?replay=1001", "?replay=x", "?ramp=0", "?ramp=100%25", "?dry_run=true", "?min=3"):
            self.assert_problem(server.admin("POST", f"/admin/plan{query}"), 400)
        self.assert_problem(server.reload("?replay=5"), 400)
        self.assert_problem(server.request("POST", "/admin/plan"), 401)
        self.assertEqual(server.admin("GET", "/admin/plan").status, 405)


class ReplayTests(PlanCase):
    """``--replay``."""

    def kinds(self, answer: dict[str, Any]) -> dict[str, tuple[str, str]]:
        """Return the events that are treated differently: before and now, by kind."""
        return {each["kind"]: (each["before"], each["now"]) for each in answer["different"]}

    def deliver(self, server: ServerProcess, *actions: str) -> list[Answer]:
        """Deliver events of issues with these actions, and wait until they have been treated."""
        before = len(server.records("trigger.outbox"))
        answers = [
            server.deliver("/triggers/gh", f'{{"action": "{action}"}}'.encode(), delivery=f"d{before + index}")
            for index, action in enumerate(actions)
        ]
        self.wait_records(server, "trigger.outbox", before + len(actions))
        return answers

    def test_filter_and_predicate(self) -> None:
        """Of recorded events exactly those that the new rules treat otherwise are listed; no handler is called."""
        self.write("rules.py", "def wanted(event):\n    return event.kind != 'issues.edited'\n")
        self.write_manifest(
            trigger_text("gh", extra='when = "rules:wanted"'), trigger_text("same", handler="apart:on_event")
        )
        self.write("apart.py", "def on_event(event):\n    return None\n")
        server = self.serve()
        for answer in self.deliver(server, "opened", "closed", "labeled", "edited", "pinned", "locked"):
            self.assert_accepted(answer)
        handled = self.handled()
        self.write(
            "rules.py",
            """
            def wanted(event):
                if event.kind == "issues.pinned":
                    raise ValueError("no pins")
                return event.kind != "issues.labeled"
            """,
        )
        self.write_manifest(
            trigger_text(
                "gh", events=("issues.*",), extra='filter = "event.kind != \'issues.closed\'"\nwhen = "rules:wanted"'
            ),
            trigger_text("same", handler="apart:on_event"),
        )
        [found] = self.plan(server, "?replay=100")["plan"]["replay"]
        self.assertEqual((found["trigger_id"], found["events"], found["undecided"], found["more"]), ("gh", 6, 0, 0))
        expected = {
            "issues.closed": ("handled", "filtered"),
            "issues.labeled": ("handled", "skipped"),
            "issues.edited": ("skipped", "handled"),
            "issues.pinned": ("handled", "predicate_error"),
        }
        self.assertEqual((self.kinds(found), found["same"]), (expected, 2))
        [pinned] = [each for each in found["different"] if each["kind"] == "issues.pinned"]
        self.assertIn("no pins", pinned["error"])
        # The newest two alone.
        [found] = self.plan(server, "?replay=2")["plan"]["replay"]
        self.assertEqual((found["events"], self.kinds(found)), (2, {"issues.pinned": expected["issues.pinned"]}))
        self.assertEqual(self.handled(), handled)
        done = self.orchestrator("plan", "--replay", "100")
        self.assertEqual(done.status, 1, done)
        self.assertIn("replay gh: 6 events, 4 treated differently", done.stdout)
        self.assertIn("issues.closed: handled -> filtered", done.stdout)
        # What the plan says is what comes: the same events, sent again, are treated so.
        self.assert_reloaded(server.reload(), modified=["gh"], unchanged=["same"])
        again = self.deliver(server, "opened", "labeled", "edited")
        self.assertEqual([answer.json()["status"] for answer in again], ["accepted"] * 3)
        kinds = [each["kind"] for each in server.records("trigger.outbox")[-3:]]
        self.assertEqual(sorted(kinds), ["dispatch_skipped", "dispatch_succeeded", "dispatch_succeeded"])
        closed = server.deliver("/triggers/gh", b'{"action": "closed"}', delivery="again")
        self.assertEqual(closed.json()["status"], "ignored")

    def test_predicate_that_ends_its_process(self) -> None:
        """A predicate that exits, or hangs, is an error of the events that it is asked about; the server lives."""
        self.write("rules.py", "def wanted(event):\n    return True\n")
        self.write_manifest(trigger_text("gh", extra='when = "rules:wanted"\ntimeout = "2s"'))
        server = self.serve()
        self.deliver(server, "opened", "closed", "edited")
        wait_until(lambda: len(server.children()) == 2, "the interpreter and its spare")
        before = self.likeness(server)
        self.write(
            "rules.py",
            """
            import os, time

            def wanted(event):
                if event.kind == "issues.closed":
                    os._exit(3)
                if event.kind == "issues.edited":
                    time.sleep(600)
                return True
            """,
        )
        [found] = self.plan(server, "?replay=100")["plan"]["replay"]
        expected = {"issues.closed": ("handled", "predicate_error"), "issues.edited": ("handled", "predicate_error")}
        self.assertEqual((self.kinds(found), found["same"]), (expected, 1))
        wait_until(lambda: server.children() == before["children"], "the replay's processes to be gone")
        self.assertEqual(self.likeness(server), before)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="later"), binding="gh@v1")
