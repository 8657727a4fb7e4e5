"""The admin API: generations, conditional reloads, bindings, events."""

from __future__ import annotations

from harn.testing.server import wait_until
from tests.integration.case import REPORT, ServerCase, SharedServerCase, trigger_text


class GenerationTests(ServerCase):
    """What is live, and reloads that depend on it."""

    def test_generation(self) -> None:
        """The live generation shows number, digest, source, actor, its files, drift and the last failure."""
        server = self.serve()
        answer = server.admin("GET", "/admin/generation")
        live = answer.json()
        fields = {"generation", "digest", "source", "actor", "drift", "last_failed"}
        self.assertLessEqual(fields, set(live))
        self.assertEqual((live["generation"], live["drift"], live["last_failed"]), (1, False, None))
        self.assertEqual(live["digest"], server.state()["digest"])
        text = answer.body.decode()
        for path in (self.directory / "harn.toml", self.directory / "handlers.py"):
            self.assertIn(str(path), text)
        self.assertIn("etag", answer.headers)

    def test_drift_and_last_failure(self) -> None:
        """Edited files are drift until they are reloaded; a failed reload is shown until one succeeds."""
        server = self.serve()
        self.write_handlers("two")
        self.assertTrue(server.generation()["drift"])
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertFalse(server.generation()["drift"])
        self.write("harn.toml", "nonsense [")
        self.assertTrue(server.generation()["drift"])
        failed = self.assert_failed(server.reload(), "parse")
        live = server.generation()
        self.assertEqual(live["generation"], 2)
        self.assertEqual(live["last_failed"]["error"], failed["error"])
        self.assertEqual(live["last_failed"]["stage"], "parse")
        self.write_manifest()
        self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertIsNone(server.generation()["last_failed"])
        self.assertFalse(server.generation()["drift"])

    def test_if_match(self) -> None:
        """``If-Match`` lets a reload through that names the live generation; another gets 412 with both."""
        server = self.serve()
        first = server.admin("GET", "/admin/generation").headers["etag"]
        self.write_handlers("two")
        self.assert_reloaded(server.reload(headers={"If-Match": first}), modified=["gh"])
        second = server.admin("GET", "/admin/generation").headers["etag"]
        self.assertNotEqual(first, second)
        self.write_handlers("three")
        refused = server.reload(headers={"If-Match": first})
        self.assert_problem(refused, 412)
        text = refused.body.decode().replace("\\", "")
        for etag in (first, second):
            self.assertIn(etag.strip('"'), text)
        self.assertEqual(server.generation()["generation"], 2)
        self.assert_reloaded(server.reload(headers={"If-Match": second}), modified=["gh"])

    def test_generations(self) -> None:
        """The history lists every generation that served, with its source."""
        server = self.serve()
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.write("harn.toml", "nonsense [")
        self.assert_failed(server.reload(), "parse")
        history = server.admin("GET", "/admin/generations").json()["generations"]
        self.assertEqual([each["generation"] for each in history], [2, 1])
        self.assertEqual(history[0]["source"], "admin_api")

    def test_dry_run(self) -> None:
        """A dry run returns what would change, or the problems, and changes nothing: no number, record or state."""
        server = self.serve()
        before = (server.generation(), server.state(), server.records("orchestrator.manifest"))
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 3"), trigger_text("new"))
        report = self.assert_reloaded(server.reload("?dry_run=true"), modified=["gh"], added=["new"])
        self.assertEqual(report["changes"]["gh"], ["retry.max"])
        self.write("harn.toml", "nonsense [")
        self.assert_failed(server.reload("?dry_run=true"), "parse")
        live = server.generation()
        for name in ("generation", "digest", "source", "actor", "last_failed"):
            self.assertEqual(live[name], before[0][name])
        self.assertEqual(server.state(), before[1])
        self.assertEqual(server.records("orchestrator.manifest"), before[2])
        self.assert_problem(server.deliver("/triggers/new", delivery="d1"), 404)
        self.write_handlers("two")
        self.write_manifest()
        self.assertEqual(self.assert_reloaded(server.reload(), modified=["gh"])["generation"], 2)

    def test_force(self) -> None:
        """Forced, a reload that finds nothing changed makes a new generation of the same versions."""
        server = self.serve()
        self.assertEqual(self.assert_reloaded(server.reload(), unchanged=["gh"])["generation"], 1)
        report = self.assert_reloaded(server.reload("?force=true"), unchanged=["gh"])
        self.assertEqual(report["generation"], 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.wait_handled("d1")

    def test_report(self) -> None:
        """A report has exactly the promised keys; so have its parts."""
        self.write_manifest(trigger_text("gh", handler="handlers:held"), trigger_text("gone"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.write_manifest(trigger_text("gh", handler="handlers:held", extra='path = "/other"'), trigger_text("new"))
        answer = server.reload()
        report = self.assert_reloaded(answer, added=["new"], modified=["gh"], removed=["gone"])
        self.assertEqual(set(report), REPORT)
        self.assertEqual(set(report["summary"]), {"added", "modified", "removed", "unchanged"})
        self.assertEqual((report["status"], report["source"], report["generation"]), ("ok", "admin_api", 2))
        self.assertEqual(report["changes"], {"gh": ["path"]})
        self.assertEqual(report["draining"], [{"binding": "gh@v1", "in_flight": 1}])
        self.assertEqual((report["requires_restart"], report["warnings"]), ([], []))
        self.assertGreater(report["duration_ms"], 0)
        self.assertRegex(report["digest"], r"\Asha256:[0-9a-f]{64}\Z")
        self.release()
        self.wait_handled("d1")


class RequestTests(SharedServerCase):
    """Requests that change nothing, or little, and pages of events."""

    def test_error_report(self) -> None:
        """An error report has exactly the promised keys, and each problem says where and what to do."""
        server = self.serve()
        generation = server.generation()["generation"]
        self.write_manifest(trigger_text("gh", extra='filtre = "x"'))
        report = self.assert_failed(server.reload(), "validate")
        expected = {"status", "source", "actor", "stage", "error", "problems", "generation"}
        self.assertEqual(set(report), expected)
        [problem] = report["problems"]
        self.assertEqual(set(problem), {"file", "line", "where", "message", "hint"})
        self.assertEqual(problem["file"], "harn.toml")
        self.assertIsInstance(problem["line"], int)
        self.assertEqual(problem["where"], "triggers[0] (gh): filtre")
        self.assertIn("filter", problem["message"] + problem["hint"])
        self.assertNotIn("\n", report["error"])
        self.assertEqual(report["generation"], generation)

    def test_requires_restart(self) -> None:
        """What only a restart can change is named in the report."""
        server = self.serve()
        self.write_manifest(head='[orchestrator]\nrecover = "manual"')
        report = self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertEqual(report["requires_restart"], ["orchestrator.recover"])

    def test_bad_requests(self) -> None:
        """Bodies, options and methods that mean nothing are refused, and change nothing."""
        server = self.serve()
        generation = server.generation()["generation"]
        key = {"Authorization": "Bearer test-key"}
        self.assert_problem(server.request("POST", "/admin/reload", b"[1]", key), 400)
        self.assert_problem(server.request("POST", "/admin/reload", b"{", key), 400)
        self.assert_problem(server.admin("POST", "/admin/reload?force=perhaps", {}), 400)
        self.assert_problem(server.admin("GET", "/admin/nothing"), 404)
        answer = server.admin("GET", "/admin/reload")
        self.assert_problem(answer, 405)
        self.assertIn("POST", answer.headers["allow"])
        self.assertEqual(server.request("POST", "/admin/reload", b"", key).status, 200)
        self.assertEqual(server.generation()["generation"], generation)

    def test_events_by_page(self) -> None:
        """Events come by number, after one and up to a limit."""
        server = self.serve()
        connection = server.connect()
        for index in range(5):
            self.assert_accepted(connection.deliver("/triggers/gh", delivery=f"d{index}"))
        connection.close()
        records = server.records("trigger.inbox.envelopes")
        self.assertEqual([each["payload"]["event"]["dedupe_key"] for each in records], [f"d{i}" for i in range(5)])
        numbers = [each["number"] for each in records]
        self.assertEqual(numbers, sorted(set(numbers)))
        page = server.records("trigger.inbox.envelopes", after=numbers[1], limit=2)
        self.assertEqual([each["number"] for each in page], numbers[2:4])
        self.assertEqual(server.records("trigger.inbox.envelopes", after=numbers[-1]), [])

    def test_events_of_reloads(self) -> None:
        """Each reload, failed ones too, is a record on ``orchestrator.manifest``."""
        server = self.serve()
        before = len(server.records("orchestrator.manifest"))
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.write("harn.toml", "nonsense [")
        self.assert_failed(server.reload(), "parse")
        succeeded, failed = server.records("orchestrator.manifest")[before:]
        self.assertEqual((succeeded["kind"], failed["kind"]), ("reload_succeeded", "reload_failed"))
        self.assertEqual(succeeded["payload"]["source"], "admin_api")
        self.assertEqual(succeeded["payload"]["summary"]["modified"], ["gh"])
        self.assertEqual(failed["payload"]["stage"], "parse")


class ReadingTests(ServerCase):
    """Bindings and events."""

    def test_bindings(self) -> None:
        """Bindings show every live and draining version, its state and what is in flight; the ended ones go."""
        self.write_manifest(trigger_text("gh", handler="handlers:held"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.wait_begun("d1")
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"])

        def shown() -> dict[tuple[str, int], tuple[str, int]]:
            return {(each["id"], each["version"]): (each["state"], each["in_flight"]) for each in server.bindings()}

        self.assertEqual(shown(), {("gh", 1): ("draining", 1), ("gh", 2): ("active", 0)})
        text = server.request("GET", "/metrics").body.decode()
        self.assertIn('harn_binding_in_flight{binding_key="gh@v1",state="draining"} 1', text)
        self.release()
        self.wait_handled("d1")
        wait_until(lambda: shown() == {("gh", 2): ("active", 0)}, "v1 to retire")
        wait_until(lambda: len(server.state()["triggers"]) == 1, "the state file to tell")

    def test_reload_metrics(self) -> None:
        """Reloads are counted by source and outcome, timed by stage, and the last one's status is a gauge."""
        server = self.serve()
        self.write("harn.toml", "nonsense [")
        self.assert_failed(server.reload(), "parse")
        text = server.request("GET", "/metrics").body.decode()
        self.assertIn("harn_reload_last_status 0", text)
        self.assertRegex(text, r'harn_reload_total\{outcome="[a-z]+",source="admin_api"\} 1')
        self.assertIn("harn_reload_duration_seconds", text)
        self.write_manifest()
        self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertIn("harn_reload_last_status 1", server.request("GET", "/metrics").body.decode())
