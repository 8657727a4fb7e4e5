"""The commands that talk to a running server: what they send, what they print, how they exit."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from harn.auth.credentials import parse_signed_header, sign_request, write_token
from harn.cli.main import cli
from tests.cli.server import StubServer, tell_of

CREDENTIALS = {"HARN_ORCHESTRATOR_API_KEYS": "first, second", "HARN_ORCHESTRATOR_HMAC_SECRET": "hush"}
REPORT = {
    "status": "ok",
    "source": "cli",
    "actor": "key:1",
    "generation": 7,
    "digest": "sha256:0",
    "summary": {"added": ["new"], "modified": ["gh", "x"], "removed": ["old"], "unchanged": ["same"]},
    "changes": {"gh": ["handler code", "retry.max"]},
    "draining": [{"binding": "gh@v1", "in_flight": 3}],
    "requires_restart": ["orchestrator.listen"],
    "warnings": ["slow disk"],
    "duration_ms": 12.3,
}
NOTHING = {**REPORT, "summary": {"added": [], "modified": [], "removed": [], "unchanged": ["gh"]}, "changes": {}}
ERROR = {
    "status": "error",
    "source": "cli",
    "actor": "key:1",
    "stage": "validate",
    "error": "2 problems",
    "problems": [
        {"file": "harn.toml", "line": 3, "where": "triggers[0] (gh): id", "message": "is empty", "hint": "give it one"},
        {"file": "h.py", "line": None, "where": "", "message": "cannot be imported", "hint": ""},
    ],
    "generation": 6,
}


class CommandCase(SynchronousTestCase):
    """A test of commands; each has a state directory of its own."""

    def setUp(self) -> None:
        self.state_dir = os.path.abspath(self.mktemp())
        self.environ: dict[str, str | None] = {**dict.fromkeys(CREDENTIALS), **CREDENTIALS}

    def serve(self, *answers: tuple[int, Any] | None, **told: Any) -> StubServer:
        """Start a stand-in that the state directory names; ``told``: further members of its state file."""
        server = StubServer(*answers)
        self.addCleanup(server.close)
        self.addCleanup(tell_of(server.url, self.state_dir, **told).release)
        return server

    def harn(self, command: str, *arguments: str) -> Result:
        """Run a command on the state directory."""
        words = ["orchestrator", command, "--state-dir", self.state_dir, *arguments]
        result = CliRunner().invoke(cli, words, prog_name="harn", env=self.environ)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def assert_failed(self, result: Result, *said: str, status: int = 1) -> None:
        """See that a command failed as commands do: nothing on stdout, ``error:`` on stderr."""
        self.assertEqual((result.exit_code, result.stdout), (status, ""), result.output)
        self.assertTrue(result.stderr.startswith("error: "), result.stderr)
        for each in said:
            self.assertIn(each, result.stderr)


class ReloadTests(CommandCase):
    """``reload``."""

    def test_success_says_what_changed(self) -> None:
        """The first line counts, the others name what changed and why, and what is left to do."""
        server = self.serve((200, REPORT))
        result = self.harn("reload")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(
            result.stdout.splitlines(),
            [
                "reload ok via cli (+1 ~2 -1)",
                "  + new",
                "  ~ gh: handler code, retry.max",
                "  ~ x",
                "  - old",
                "  draining gh@v1: 3 in flight",
                "  requires a restart: orchestrator.listen",
                "  warning: slow disk",
                "  generation 7",
            ],
        )
        [seen] = server.seen
        self.assertEqual((seen.method, seen.target), ("POST", "/admin/reload"))
        self.assertEqual(seen.json()["source"], "cli")
        self.assertEqual(seen.headers["authorization"], "Bearer first")

    def test_signed_without_keys(self) -> None:
        """Without keys the request is signed with the secret, over its target and body, and never the same twice."""
        self.environ["HARN_ORCHESTRATOR_API_KEYS"] = None
        server = self.serve((200, NOTHING), (200, NOTHING))
        self.harn("reload", "--force")
        self.harn("reload", "--force")
        first, second = server.seen
        self.assertNotEqual(first.body, second.body)
        scheme, _, parameters = first.headers["authorization"].partition(" ")
        at = float(parse_signed_header(parameters).timestamp)
        self.assertEqual(scheme, "HMAC-SHA256")
        signed = sign_request(b"hush", "POST", "/admin/reload?force=true", first.body, at)
        self.assertEqual(first.headers["authorization"], signed)

    def test_options_are_passed_on(self) -> None:
        """``--dry-run``, ``--force`` and ``--if-match`` reach the server."""
        server = self.serve((200, NOTHING))
        self.harn("reload", "--dry-run", "--force", "--if-match", '"7-abc"')
        [seen] = server.seen
        self.assertEqual(seen.target, "/admin/reload?force=true&dry_run=true")
        self.assertEqual(seen.headers["if-match"], '"7-abc"')

    def test_problems(self) -> None:
        """A reload that failed exits 1 with every problem, its place first."""
        self.serve((422, ERROR))
        result = self.harn("reload")
        self.assert_failed(result)
        self.assertEqual(
            result.stderr.splitlines(),
            [
                "error: reload failed at validate: 2 problems",
                "harn.toml:3: triggers[0] (gh): id: is empty; give it one",
                "h.py: cannot be imported",
                "generation 6 goes on serving",
            ],
        )

    def test_dry_run_exits_by_what_it_found(self) -> None:
        """A dry run exits 0 without changes, 1 with changes, 2 with problems."""
        self.serve((200, {**NOTHING, "dry_run": True}), (200, {**REPORT, "dry_run": True}), (422, ERROR))
        found = [self.harn("reload", "--dry-run") for _ in range(3)]
        self.assertEqual([result.exit_code for result in found], [0, 1, 2])
        self.assertEqual(found[1].stdout.splitlines()[0], "reload (dry run) via cli (+1 ~2 -1)")

    def test_json(self) -> None:
        """``--json`` prints the report, a success or not, on stdout."""
        self.serve((200, REPORT), (422, ERROR))
        self.assertEqual(json.loads(self.harn("reload", "--json").stdout), REPORT)
        failed = self.harn("reload", "--json")
        self.assertEqual((json.loads(failed.stdout), failed.exit_code), (ERROR, 1))

    def test_refused(self) -> None:
        """A problem document is shown with its status and detail."""
        self.serve((401, {"type": "about:blank", "title": "x", "status": 401, "detail": "no such key"}))
        self.assert_failed(self.harn("reload"), "401: no such key")

    def test_late_answer(self) -> None:
        """When the answer is late, the command says that the reload continues, and how to see how it ends."""
        self.serve(None)
        self.assert_failed(self.harn("reload", "--timeout", "0.1"), "within 0.1 s", "goes on", "orchestrator.manifest")

    def test_no_server(self) -> None:
        """Without a server the command says how to start one."""
        result = self.harn("reload", "--config", "my.toml")
        self.assert_failed(result, f"no server runs on {self.state_dir}", "serve --config my.toml --state-dir")

    def test_another_manifest(self) -> None:
        """A manifest that is named must be the one that the server serves, by whatever path; else nothing is asked."""
        there = self.mktemp()
        with open(there, "w", encoding="utf-8"):
            pass
        os.symlink(os.path.abspath(there), there + ".link")
        server = self.serve(*[(200, NOTHING)] * 3, manifest_path=os.path.abspath(there))
        self.assert_failed(
            self.harn("reload", "--config", "nope.toml"),
            f"serves {os.path.abspath(there)}, not nope.toml, which does not exist",
            "--state-dir",
        )
        other = os.path.abspath(__file__)
        for command in (["inspect"], ["events", "t"], ["history"], ["fire", "gh"], ["confirm"], ["drains"]):
            self.assert_failed(self.harn(*command, "--config", other), f"not {other}; leave out --config")
        self.assertEqual(server.seen, [])
        for words in (["--config", there], ["--config", there + ".link"], []):
            self.environ["HARN_ORCHESTRATOR_MANIFEST"] = "elsewhere.toml"  # for servers to be started
            self.assertEqual(self.harn("reload", *words).exit_code, 0, words)

    def test_manifest_of_a_url(self) -> None:
        """A server that is found by its URL may be on another machine: naming a manifest is wrong usage."""
        server = self.serve()
        result = self.harn("reload", "--admin-url", server.url, "--config", "harn.toml")
        self.assertEqual((result.exit_code, server.seen), (2, []))
        self.assertIn("cannot be used with --admin-url", result.stderr)

    def test_nobody_listens(self) -> None:
        """A URL at which no server listens is named."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.assert_failed(self.harn("reload", "--admin-url", url), f"no server answers at {url}")

    def test_no_url(self) -> None:
        """A value that cannot be the URL of a server is refused."""
        for url in ("localhost:8080", "ftp://a", "http://", "http://a:port"):
            self.assert_failed(self.harn("reload", "--admin-url", url), repr(url))

    def test_somebody_else_listens(self) -> None:
        """A server other than harn is recognized by its answer."""
        server = self.serve((200, b"<html>"), (200, {"status": "fine"}), (404, b"not here"))
        for said in (server.url, server.url, "404: not here"):
            self.assert_failed(self.harn("reload"), said)

    def test_admin_url_with_a_path(self) -> None:
        """A server behind a proxy's path is asked, and signed for, under that path."""
        self.environ["HARN_ORCHESTRATOR_API_KEYS"] = None
        server = self.serve((200, NOTHING))
        self.harn("reload", "--admin-url", server.url + "/behind/")
        self.assertEqual(server.seen[0].target, "/behind/admin/reload")

    def test_no_credentials(self) -> None:
        """Without credentials nothing is sent, and both variables are named, and the file that could not be read."""
        self.environ = dict.fromkeys(CREDENTIALS)
        server = self.serve()
        self.assert_failed(self.harn("reload"), *CREDENTIALS, "token is missing; restart the server")
        os.mkdir(os.path.join(self.state_dir, "token"))  # it cannot be read as a file
        self.assert_failed(self.harn("reload"), *CREDENTIALS, "token cannot be read; run this as the server's user")
        self.assertEqual(server.seen, [])

    def test_token(self) -> None:
        """Where neither a key nor a secret is set, the state directory's token is shown: to that server alone."""
        server = self.serve((200, NOTHING), (200, NOTHING), (200, NOTHING))
        token = write_token(self.state_dir).decode()
        self.harn("reload")
        self.environ = dict.fromkeys(CREDENTIALS)
        self.harn("reload")
        self.assertEqual([seen.headers["authorization"] for seen in server.seen], ["Bearer first", f"Bearer {token}"])
        self.assert_failed(self.harn("reload", "--admin-url", server.url), *CREDENTIALS)
        self.assertEqual(len(server.seen), 2)


class FireTests(CommandCase):
    """``fire``."""

    FIRED = {
        "binding_id": "a/b",
        "binding_version": 2,
        "event_id": "trigger_evt_1",
        "status": "dispatched",
        "replay_of_event_id": None,
        "dlq_entry_id": None,
        "error": None,
        "result": {"ok": True},
    }

    def test_fields_one_a_line(self) -> None:
        """Each field is on its line, ``-`` for none; the id is one segment of the path."""
        server = self.serve((200, self.FIRED))
        result = self.harn("fire", "a/b")
        self.assertEqual(
            result.stdout.splitlines(),
            [
                "Synthetic event dispatched:",
                "- binding_id=a/b",
                "- binding_version=2",
                "- event_id=trigger_evt_1",
                "- status=dispatched",
                "- replay_of_event_id=-",
                "- dlq_entry_id=-",
                "- error=-",
                '- result={"ok":true}',
            ],
        )
        self.assertEqual(server.seen[0].target, "/admin/fire/a%2Fb")

    def test_json_and_unknown(self) -> None:
        """``--json`` prints the answer; an unknown trigger is an error."""
        self.serve((200, self.FIRED), (404, {"status": 404, "detail": "unknown manifest binding 'zz'"}))
        self.assertEqual(json.loads(self.harn("fire", "a/b", "--json").stdout), self.FIRED)
        self.assert_failed(self.harn("fire", "zz"), "unknown manifest binding 'zz'")

    def test_exits_by_what_the_handler_did(self) -> None:
        """The exit status is 1 when the handler failed, with or without another attempt; all is printed as usual."""
        statuses = {"dispatched": 0, "waiting": 1, "dlq": 1, "pending": 0, "ignored": 0, "duplicate_dropped": 0}
        self.serve(*((200, {**self.FIRED, "status": status}) for status in statuses))
        for status, wanted in statuses.items():
            result = self.harn("fire", "a/b")
            self.assertEqual((result.exit_code, f"- status={status}\n" in result.stdout), (wanted, True), status)

    def test_data_and_kind(self) -> None:
        """The body is JSON: a text, a file, or standard input; with the kind it is in the request."""
        file = self.mktemp()
        with open(file, "w", encoding="utf-8") as out:
            out.write('{"from": "file"}')
        server = self.serve(*[(200, self.FIRED)] * 3)
        for data, typed, body in (
            ('{"n": 1}', None, {"n": 1}),
            (f"@{file}", None, {"from": "file"}),
            ("-", "[1, 2]", [1, 2]),
        ):
            words = ["fire", "--state-dir", self.state_dir, "gh", "--data", data, "-k", "issues.opened"]
            done = CliRunner().invoke(cli, words, env=self.environ, input=typed)
            self.assertEqual(done.exit_code, 0, done.output)
            sent = server.seen[-1].json()
            self.assertEqual((sent["payload"], sent["kind"]), (body, "issues.opened"))

    def test_wrong_data(self) -> None:
        """Text that is not JSON, and a file that is not there, are named, and nothing is sent."""
        server = self.serve()
        self.assert_failed(self.harn("fire", "gh", "--data", "n=1"), "--data must be JSON, got 'n=1'")
        self.assert_failed(self.harn("fire", "gh", "--data", "@nowhere.json"), "nowhere.json cannot be read")
        self.assertEqual(server.seen, [])


class RecoverTests(CommandCase):
    """``recover``."""

    FOUND: dict[str, Any] = {
        "dry_run": True,
        "min_envelope_age_seconds": 0.0,
        "stranded_envelopes": 1,
        "candidates": [
            {
                "event_id": "trigger_evt_1",
                "trigger_id": "gh",
                "binding_version": 1,
                "provider": "github",
                "kind": "issues.opened",
                "state": "ready",
                "age_seconds": 61.5,
                "received_at": "2026",
                "inbox_offset": 9,
            }
        ],
        "recovered": 0,
    }

    def test_must_be_told_to(self) -> None:
        """Neither ``--yes`` nor ``--dry-run``: refused, and nothing is asked of the server."""
        server = self.serve()
        result = self.harn("recover", "--envelope-age", "0s")
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertIn("refusing to recover without --yes", result.stderr)
        self.assertEqual(server.seen, [])

    def test_age_needs_a_unit(self) -> None:
        """A bare number, and no age at all, are wrong usage."""
        for arguments in (["--envelope-age", "5"], []):
            self.assertEqual(self.harn("recover", "--yes", *arguments).exit_code, 2)

    def test_dry_run_exits_by_what_it_found(self) -> None:
        """A dry run exits 0 with nothing to take up, 1 with something, 2 with problems."""
        error = {"title": "Internal Server Error", "status": 500, "detail": "the event log cannot be read"}
        nothing = {**self.FOUND, "candidates": [], "stranded_envelopes": 0}
        self.serve((200, nothing), (200, self.FOUND), (200, self.FOUND), (500, error))
        words = ("recover", "--envelope-age", "0s", "--dry-run")
        found = [self.harn(*words, *more) for more in ([], [], ["--json"], [])]
        self.assertEqual([each.exit_code for each in found], [0, 1, 1, 2])
        self.assertIn("error: ", found[-1].stderr)

    def test_dry_run_lists(self) -> None:
        """A dry run lists the candidates and takes none up."""
        server = self.serve((200, self.FOUND))
        result = self.harn("recover", "--envelope-age", "1m", "--dry-run")
        self.assertEqual(
            result.stdout.splitlines(),
            [
                "Recovery:",
                "- dry_run=true",
                "- min_envelope_age=1m",
                "- stranded_envelopes=1",
                "Candidates:",
                "- event_id=trigger_evt_1 trigger_id=gh binding_version=1 provider=github kind=issues.opened "
                "age=61.5s received_at=2026 inbox_offset=9",
            ],
        )
        asked = server.seen[0].json()
        self.assertEqual((asked["envelope_age"], asked["dry_run"]), ("1m", True))

    def test_yes_takes_up(self) -> None:
        """With ``--yes`` the results are listed, too; none is said as none."""
        (row,) = self.FOUND["candidates"]
        rows = [{**row, "status": "dispatched"}, {**row, "event_id": "trigger_evt_2", "status": "left"}]
        some = {**self.FOUND, "candidates": rows, "stranded_envelopes": 5, "recovered": 4}
        self.serve((200, some), (200, {**self.FOUND, "candidates": [], "stranded_envelopes": 0}))
        taken = self.harn("recover", "--envelope-age", "0s", "--yes").stdout
        self.assertIn("- the oldest 2 of 5 are listed; all count\n", taken)
        self.assertIn(
            "Replay results:\n- event_id=trigger_evt_1 trigger_id=gh status=dispatched\n"
            "- event_id=trigger_evt_2 trigger_id=gh status=left\n- recovered=4\n",
            taken,
        )
        self.assertIn("Replay results:\n- none\n", self.harn("recover", "--envelope-age", "0s", "--yes").stdout)


class InspectTests(CommandCase):
    """``inspect``."""

    FOUND: dict[str, Any] = {
        "triggers": [
            {
                "id": "gh",
                "provider": "github",
                "kind": "webhook",
                "handler": "local",
                "version": 2,
                "state": "active",
                "received": 3,
                "refused": 0,
                "dispatched": 2,
                "failed": 0,
                "dlq": 0,
                "in_flight": 1,
                "accepted": 12,
                "running": 1,
                "waiting": 2,
                "dead": 3,
                "last_success": "2026-11-30T08:00:00.000Z",
                "last_failure": None,
                "next_due": None,
            }
        ],
        "connectors": [],
        "activations": [],
        "snapshot": {"status": "running", "bind": "x:1", "generation": 4, "digest": "d", "last_reload": None},
        "dispatcher": {"in_flight": 0, "queued": 1, "waiting_retries": 2},
        "recent_dispatches": [{"kind": "dispatch_succeeded", "event_id": str(n)} for n in range(7)],
    }

    def test_sections(self) -> None:
        """Each section has its rows, or ``- none``; of the dispatches the last five."""
        self.serve((200, self.FOUND))
        lines = self.harn("inspect").stdout.splitlines()
        self.assertEqual(
            lines[:13],
            [
                "Triggers:",
                "- id=gh provider=github kind=webhook handler=local version=2 state=active received=3 refused=0 "
                "dispatched=2 failed=0 dlq=0 in_flight=1 accepted=12 running=1 waiting=2 dead=3 "
                "last_success=2026-11-30T08:00:00.000Z last_failure=- next_due=- paused=false circuit=-",
                "Connectors:",
                "- none",
                "Snapshot:",
                "- status=running",
                "- bind=x:1",
                "- generation=4",
                "- digest=d",
                "- pinned=false",
                "- last_reload=-",
                "Dispatcher:",
                "- in_flight=0 queued=1 waiting_retries=2",
            ],
        )
        self.assertEqual(lines[13:15], ["Recent dispatches:", "- kind=dispatch_succeeded event_id=2"])
        self.assertEqual(len(lines), 19)

    def test_json(self) -> None:
        """``--json`` prints what the server says."""
        self.serve((200, self.FOUND))
        self.assertEqual(json.loads(self.harn("inspect", "--json").stdout), self.FOUND)

    def test_never_ran(self) -> None:
        """Where no server has run there is nothing to show."""
        self.assert_failed(self.harn("inspect"), "no server has run on", "serve --config")
