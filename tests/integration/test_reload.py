"""Reloads that go well: the four ways to ask for one, and what counts as a change."""

from __future__ import annotations

import os
import signal

from tests.integration.case import ServerCase, SharedServerCase, trigger_text


class EntryPointTests(ServerCase):
    """The ways to ask; ``--watch`` has a module of its own."""

    def test_signal(self) -> None:
        """SIGHUP reloads with source ``signal``, and the state file shows it."""
        server = self.serve()
        self.write_handlers("two")
        server.signal(signal.SIGHUP)
        last = self.wait_last_reload(server, lambda last: last["source"] == "signal")
        self.assertEqual(set(last), {"source", "actor", "status", "at", "error"})
        self.assertEqual((last["status"], last["error"]), ("ok", None))
        self.assertEqual(server.state()["generation"], 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["version"], "two")

    def test_command(self) -> None:
        """``harn orchestrator reload`` finds the server, says what changed, and exits 0; with ``--json`` the report."""
        server = self.serve()
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 3"), trigger_text("new"))
        done = self.orchestrator("reload")
        self.assertEqual(done.status, 0, done)
        self.assertIn("reload ok via cli (+1 ~1 -0)", done.stdout)
        for word in ("new", "gh", "retry.max"):
            self.assertIn(word, done.stdout)
        report = self.checked("reload")
        self.assertEqual((report["status"], report["source"], report["generation"]), ("ok", "cli", 2))
        by_url = self.harn("orchestrator", "reload", "--admin-url", server.url)
        self.assertEqual(by_url.status, 0, by_url)

    def test_command_without_server(self) -> None:
        """Without a server the command says so and exits 1."""
        done = self.orchestrator("reload")
        self.assertEqual(done.status, 1)
        self.assertIn("error: ", done.stderr)


class CommandTests(SharedServerCase):
    """The command's options and exit status, and the admin API's source."""

    def test_command_dry_run(self) -> None:
        """``--dry-run`` exits 0 when nothing would change, 1 when something would, 2 for problems."""
        server = self.serve()
        generation = server.generation()["generation"]
        self.assertEqual(self.orchestrator("reload", "--dry-run").status, 0)
        self.write_handlers("two")
        done = self.orchestrator("reload", "--dry-run")
        self.assertEqual(done.status, 1, done)
        self.assertIn("gh", done.stdout)
        self.write("harn.toml", "nonsense [")
        self.assertEqual(self.orchestrator("reload", "--dry-run").status, 2)
        self.assertEqual(server.generation()["generation"], generation)

    def test_command_failure(self) -> None:
        """A reload that fails prints the problems with file and line on stderr, and exits 1."""
        server = self.serve()
        binding = server.deliver("/triggers/gh", delivery="d0").json()["binding"]
        self.write_manifest(trigger_text("gh", extra='filtre = "x"'))
        done = self.orchestrator("reload")
        self.assertEqual(done.status, 1, done)
        self.assertIn("error: ", done.stderr)
        self.assertRegex(done.stderr, r"harn\.toml:\d+: triggers\[0\] \(gh\): filtre: ")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding=binding)

    def test_command_force(self) -> None:
        """``--force`` makes a new generation of the same."""
        server = self.serve()
        generation = server.generation()["generation"]
        self.assertEqual(self.orchestrator("reload", "--force").status, 0)
        self.assertEqual(server.generation()["generation"], generation + 1)

    def test_command_that_runs_out_of_time(self) -> None:
        """``--timeout``: on expiry it says that the reload continues, and how to see it; the reload does continue."""
        server = self.serve()
        generation = server.generation()["generation"]
        self.write("slow_import.py", "import time\ntime.sleep(3.0)\n")
        self.write_handlers("two", "import slow_import\n")
        done = self.orchestrator("reload", "--timeout", "0.5")
        self.assertEqual(done.status, 1, done)
        self.assertIn("goes on", done.stderr)
        self.wait_generation(server, generation + 1)

    def test_post(self) -> None:
        """``POST /admin/reload`` has source ``admin_api``, or the one that its body says."""
        server = self.serve()
        self.assertEqual(server.reload().json()["source"], "admin_api")
        self.assertEqual(server.admin("POST", "/admin/reload", {"source": "http_test"}).json()["source"], "http_test")
        key = {"X-API-Key": "test-key"}
        self.assertEqual(server.request("POST", "/admin/reload", b"", key).json()["source"], "admin_api")


class ChangeTests(ServerCase):
    """The changes that a reload finds, and their effects."""

    def test_added_modified_removed_unchanged(self) -> None:
        """Routes follow: a new one answers, a moved one answers at its new path alone, a removed one is gone."""
        same, moved, gone = trigger_text("same"), trigger_text("moved", extra='path = "/old"'), trigger_text("gone")
        self.write_manifest(same, moved, gone)
        server = self.serve()
        connection = server.connect()
        self.assert_accepted(connection.deliver("/triggers/gone", delivery="d1"), "gone")
        self.write_manifest(same, trigger_text("moved", extra='path = "/new"'), trigger_text("added"))
        expected = {"added": ["added"], "modified": ["moved"], "removed": ["gone"], "unchanged": ["same"]}
        report = self.assert_reloaded(server.reload(), **expected)
        self.assertEqual(report["changes"], {"moved": ["path"]})
        self.assert_accepted(connection.deliver("/triggers/added", delivery="d2"), "added", "added@v1")
        self.assert_accepted(connection.deliver("/new", delivery="d3"), "moved", "moved@v2")
        self.assert_accepted(connection.deliver("/triggers/same", delivery="d4"), "same", "same@v1")
        for path in ("/old", "/triggers/gone"):
            self.assert_problem(connection.deliver(path, delivery="d5"), 404)
        self.assertEqual(connection.request("GET", "/health").status, 200)
        connection.close()
        self.wait_handled("d1", "d2", "d3", "d4")

    def test_nothing_changed(self) -> None:
        """Comments and order change nothing that runs; nothing at all changes no generation and costs no process."""
        server = self.serve()
        before = server.generation()
        self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertEqual(server.generation(), before)
        self.write_manifest(head="# a comment\n")
        report = self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertEqual(report["changes"], {})
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")

    def test_touch(self) -> None:
        """Files that are only touched are not changed."""
        server = self.serve()
        for name in ("harn.toml", "handlers.py"):
            os.utime(self.directory / name)
        report = self.assert_reloaded(server.reload(), unchanged=["gh"])
        self.assertEqual(report["generation"], 1)

    def test_code_imported_two_deep(self) -> None:
        """An edit of a module that the handler's module's module imports modifies it; others stay as they are."""
        self.write("deep.py", "VALUE = 1\n")
        self.write("middle.py", "from deep import VALUE\n")
        self.write("apart.py", "from handlers import on_event\n")
        self.write(
            "top.py",
            """
            import middle
            from handlers import note

            def on_top(event, context):
                note(key=event.dedupe_key, value=middle.VALUE)
            """,
        )
        self.write_manifest(trigger_text("top", handler="top:on_top"), trigger_text("apart", handler="apart:on_event"))
        server = self.serve()
        self.write("deep.py", "VALUE = 2\n")
        report = self.assert_reloaded(server.reload(), modified=["top"], unchanged=["apart"])
        self.assertEqual(report["changes"], {"top": ["handler code"]})
        self.assert_accepted(server.deliver("/triggers/top", delivery="d1"), "top", "top@v2")
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["value"], 2)
        self.assert_accepted(server.deliver("/triggers/apart", delivery="d2"), "apart", "apart@v1")
        self.wait_handled("d2")

    def test_same_size_within_a_second(self) -> None:
        """An edit of the same size right after the last is seen: no stamp of a byte code cache is trusted."""
        server = self.serve()
        for version in ("two", "six", "ten"):
            self.write_handlers(version)
            self.assert_reloaded(server.reload(), modified=["gh"])
            self.assert_accepted(server.deliver("/triggers/gh", delivery=version))
            [seen] = self.wait_handled(version)
            self.assertEqual(seen["version"], version)

    def test_predicate_code(self) -> None:
        """An edit of the predicate's module alone modifies the trigger."""
        self.write("rules.py", "def wanted(event):\n    return True\n")
        self.write_manifest(trigger_text("gh", extra='when = "rules:wanted"'))
        server = self.serve()
        self.write("rules.py", "def wanted(event):\n    return False\n")
        report = self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertEqual(len(report["changes"]["gh"]), 1)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")
        [record] = self.wait_records(server, "trigger.outbox", 1)
        self.assertEqual(record["kind"], "dispatch_skipped")

    def test_included_modules(self) -> None:
        """``[orchestrator.vm] include`` adds modules that imports in the source do not show."""
        self.write("rules/one.py", "VALUE = 1\n")
        self.write(
            "handlers.py",
            """
            import importlib, json, os

            def on_event(event, context):
                value = importlib.import_module("rules.one").VALUE
                with open(os.environ["TEST_SEEN"], "a") as file:
                    file.write(json.dumps({"key": event.dedupe_key, "value": value}) + "\\n")
            """,
        )
        self.write_manifest(head='[orchestrator.vm]\ninclude = ["rules/*.py"]')
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"))
        self.assertEqual(self.wait_handled("d1")[0]["value"], 1)
        self.write("rules/one.py", "VALUE = 2\n")
        self.assertEqual(server.reload().json()["generation"], 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"))
        self.assertEqual(self.wait_handled("d2")[0]["value"], 2)

    def test_versions_never_go_back(self) -> None:
        """A, B, A gives v1, v2, v3 and generations 1, 2, 3."""
        server = self.serve()
        for number, version in ((2, "two"), (3, "one")):
            self.write_handlers(version)
            report = self.assert_reloaded(server.reload(), modified=["gh"])
            self.assertEqual(report["generation"], number)
            answer = server.deliver("/triggers/gh", delivery=f"d{number}")
            self.assert_accepted(answer, binding=f"gh@v{number}")
            self.assertEqual(answer.headers["harn-generation"], str(number))
        self.wait_handled("d2", "d3")

    def test_numbers_over_restarts(self) -> None:
        """A start that finds what was last adopted keeps its numbers; else it is the next, unchanged bindings stay."""
        self.write_manifest(trigger_text("gh"), trigger_text("same", handler="apart:on_event"))
        self.write("apart.py", "def on_event(event):\n    return None\n")
        server = self.serve()
        self.write_handlers("two")
        self.assert_reloaded(server.reload(), modified=["gh"], unchanged=["same"])
        server = self.restart(server)
        self.assertEqual(server.generation()["generation"], 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")
        self.write("harn.toml", "nonsense [")
        self.assert_failed(server.reload(), "parse")
        self.write_manifest(trigger_text("gh"), trigger_text("same", handler="apart:on_event"))
        self.write_handlers("three")
        server = self.restart(server)
        self.assertEqual(server.generation()["generation"], 3)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v3")
        self.assert_accepted(server.deliver("/triggers/same", delivery="d3"), "same", "same@v1")
        server.kill()
        server = self.serve()
        self.assertEqual(server.generation()["generation"], 3)

    def test_removed_and_added_again(self) -> None:
        """A trigger that comes back continues counting its versions."""
        self.write_manifest(trigger_text("gh"), trigger_text("other"))
        server = self.serve()
        self.write_manifest(trigger_text("other"))
        self.assert_reloaded(server.reload(), removed=["gh"], unchanged=["other"])
        self.write_manifest(trigger_text("gh"), trigger_text("other"))
        self.assert_reloaded(server.reload(), added=["gh"], unchanged=["other"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")
