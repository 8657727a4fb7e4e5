"""``reload``, ``plan``, ``rollback`` and ``confirm``: what they ask a server for, and how they exit."""

from __future__ import annotations

import json

from tests.cli.test_commands import ERROR, NOTHING, REPORT, CommandCase

HELD = {**ERROR, "status": "needs_confirmation", "stage": None, "problems": [], "removed": ["a"]}


class WishTests(CommandCase):
    """Options that go into the query."""

    def test_all_are_passed_on(self) -> None:
        """Shares and durations go as they were written."""
        server = self.serve((200, REPORT))
        words = "--ramp 10% --confirm-within 60s --revert-on-failures 20% --min 5 --for 2m"
        self.assertEqual(self.harn("reload", *words.split()).exit_code, 0)
        self.assertEqual(
            server.seen[0].target,
            "/admin/reload?ramp=10%25&confirm_within=60s&revert_on_failures=20%25&min=5&for=2m",
        )

    def test_plan(self) -> None:
        """``plan`` asks for a plan with the same options, and exits as a dry run does."""
        server = self.serve((200, NOTHING), (200, REPORT), (422, ERROR), (409, HELD))
        words = ("--force", "--replay", "50", "--ramp", "10", "--if-match", '"7-abc"')
        found = [self.harn("plan", *words) for _ in range(4)]
        self.assertEqual([result.exit_code for result in found], [0, 1, 2, 2])
        self.assertEqual(server.seen[0].target, "/admin/plan?force=true&ramp=10&replay=50")
        self.assertEqual((server.seen[0].json()["source"], server.seen[0].headers["if-match"]), ("cli", '"7-abc"'))

    def test_plain_plan(self) -> None:
        """Without options there is no query."""
        server = self.serve((200, NOTHING))
        self.harn("plan")
        self.assertEqual(server.seen[0].target, "/admin/plan")

    def test_dry_run_with_replay(self) -> None:
        """``reload --dry-run --replay`` is the same as a plan."""
        server = self.serve((200, NOTHING))
        self.harn("reload", "--dry-run", "--replay", "1000")
        self.assertEqual(server.seen[0].target, "/admin/reload?replay=1000&dry_run=true")

    def test_usage(self) -> None:
        """Invalid options are wrong usage, and nothing is requested of the server."""
        server = self.serve()
        for words in (
            ["reload", "--replay", "5"],
            ["plan", "--replay", "0"],
            ["plan", "--replay", "1001"],
            ["plan", "--dry-run"],
            ["reload", "--min", "5"],
            ["reload", "--for", "2m"],
            ["reload", "--confirm-within", "60"],
            ["reload", "--confirm-within", ""],
            ["reload", "--ramp", "some"],
            ["reload", "--confirm-within", "0s"],
            ["reload", "--ramp", "101%"],
            ["reload", "--ramp", "0"],
            ["reload", "--ramp", "100%"],
            ["reload", "--ramp", "0.1"],
            ["reload", "--revert-on-failures", "0.5"],
            ["reload", "--revert-on-failures", "100%"],
            ["reload", "--revert-on-failures", "5%", "--for", "0s"],
            ["reload", "--timeout", "0"],
            ["reload", "--timeout", "nan"],
            ["reload", "--timeout", "inf"],
            ["reload", "--revert-on-failures", "-1%"],
            ["reload", "--revert-on-failures", "5%", "--min", "0"],
            ["rollback", "0"],
            ["rollback", "three"],
            ["rollback", "--ramp", "10%"],
            ["confirm", "-1"],
        ):
            result = self.harn(*words)
            self.assertEqual((result.exit_code, result.stdout), (2, ""), words)
            self.assertIn("Error", result.stderr, words)
        self.assertEqual(server.seen, [])

    def test_what_is_wanted(self) -> None:
        """A value that cannot be read is quoted, with what it should have been."""
        for words, wanted in (
            (["show", "abc"], "must be an integer of at least 1, got 'abc'\n"),
            (["history", "--limit", "5000"], "must be an integer from 1 to 1000, got 5000"),
            (["rollback", "1.5"], "must be an integer of at least 1, got '1.5'"),
            (["reload", "--timeout", "soon"], "must be a number of seconds greater than 0, got 'soon'"),
            (["reload", "--ramp", "0.1"], "'0.1' could be 0.1 % or 10 %"),
            (["reload", "--ramp", "100%"], "must be greater than 0% and less than 100%, got '100%'"),
            (["reload", "--confirm-within", "0s"], "must be greater than 0, got '0s'"),
        ):
            result = self.harn(*words)
            self.assertEqual(result.exit_code, 2, words)
            self.assertIn(wanted, result.stderr)

    def test_less_than_a_percent(self) -> None:
        """With its sign a share of less than one percent is clear."""
        server = self.serve((200, REPORT))
        self.harn("reload", "--ramp", "0.1%")
        self.assertEqual(server.seen[0].target, "/admin/reload?ramp=0.1%25")

    def test_misspelt_command(self) -> None:
        """The command that was meant is named."""
        result = self.harn("rolback")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("No such command 'rolback'. Did you mean 'rollback'?", result.stderr)
        self.assertNotIn("Did you mean", self.harn("quux").stderr)

    def test_plan_that_could_not_be_made(self) -> None:
        """A dry run without a server, or without leave, is a problem (2), never "something would change" (1)."""
        refused = (401, {"type": "about:blank", "title": "x", "status": 401, "detail": "no such key"})
        self.serve(refused, refused, refused)
        for words in (["plan"], ["reload", "--dry-run"], ["rollback", "--dry-run"]):
            self.assert_failed(self.harn(*words), "401: no such key", status=2)
        self.assert_failed(self.harn("plan", "--admin-url", "http://127.0.0.1:1"), "no server answers", status=2)

    def test_late_plan(self) -> None:
        """A dry run whose answer is late continues to nothing: the command says so, and not that a reload continues."""
        self.serve(None, None, None)
        for words in (["plan"], ["reload", "--dry-run"], ["rollback", "--dry-run"]):
            late = self.harn(*words, "--timeout", "0.1")
            self.assert_failed(late, "within 0.1 s", "nothing changes", "longer --timeout", status=2)
            self.assertNotIn("goes on", late.stderr)


class RollbackTests(CommandCase):
    """``rollback``."""

    def test_to_the_one_before(self) -> None:
        """Without a number none is sent; the report says what was recalled and that the files differ."""
        server = self.serve((200, {**REPORT, "recalled": 5, "drifted_files": ["/srv/harn.toml"]}))
        result = self.harn("rollback")
        self.assertEqual(result.exit_code, 0)
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], "rollback to the content of generation 5 ok via cli (+1 ~2 -1)")
        self.assertEqual(lines[-1], "    /srv/harn.toml")
        (seen,) = server.seen
        self.assertEqual(
            (seen.method, seen.target, set(seen.json())), ("POST", "/admin/rollback", {"source", "request_id"})
        )

    def test_options(self) -> None:
        """The number goes in the body, a precondition in its header, the rest in the query."""
        server = self.serve((200, {**REPORT, "dry_run": True, "recalled": 3}))
        result = self.harn("rollback", "3", "--dry-run", "--force", "--if-match", '"7-abc"')
        self.assertEqual(result.exit_code, 1)
        (seen,) = server.seen
        self.assertEqual((seen.target, seen.json()["generation"]), ("/admin/rollback?dry_run=true&force=true", 3))
        self.assertEqual(seen.headers["if-match"], '"7-abc"')

    def test_failures(self) -> None:
        """A generation that is not kept, another that came between, and content that is broken now exit 1."""
        self.serve(
            (404, {"status": 404, "detail": "the content of generation 3 is not kept; kept are: 5, 6"}),
            (412, {"status": 412, "detail": "another reload came between", "etag": '"8-x"'}),
            (422, {**ERROR, "stage": "resolve"}),
        )
        self.assert_failed(self.harn("rollback", "3"), "kept are: 5, 6")
        self.assert_failed(self.harn("rollback", "--if-match", '"7-x"'), "another reload came between")
        self.assert_failed(self.harn("rollback"), "reload failed at resolve: 2 problems")

    def test_late_answer(self) -> None:
        """When the answer is late the command says that it continues."""
        self.serve(None)
        self.assert_failed(self.harn("rollback", "--timeout", "0.1"), "goes on", "orchestrator.manifest")

    def test_json(self) -> None:
        """``--json`` prints the report."""
        self.serve((200, REPORT))
        self.assertEqual(json.loads(self.harn("rollback", "--json").stdout), REPORT)


class ConfirmTests(CommandCase):
    """``confirm``."""

    CONFIRMED = {"generation": 8, "status": "confirmed"}

    def test_confirm(self) -> None:
        """It says which generation stays; with a number only that one is meant."""
        server = self.serve((200, self.CONFIRMED), (200, self.CONFIRMED))
        self.assertEqual(self.harn("confirm").stdout, "generation 8 confirmed\n")
        self.assertEqual(json.loads(self.harn("confirm", "8", "--json").stdout), self.CONFIRMED)
        self.assertEqual([seen.target for seen in server.seen], ["/admin/confirm"] * 2)
        self.assertEqual([seen.json().get("generation") for seen in server.seen], [None, 8])

    def test_nothing_to_confirm(self) -> None:
        """Nothing on probation exits 1 with the server's words; so does no server."""
        self.serve((409, {"status": 409, "detail": "no generation waits for confirmation"}))
        self.assert_failed(self.harn("confirm"), "409: no generation waits for confirmation")

    def test_no_server(self) -> None:
        """Without a server there is nothing to confirm, and the command says how to start one."""
        self.assert_failed(self.harn("confirm"), "no server runs on")
