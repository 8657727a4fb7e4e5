"""Rollbacks on real servers: earlier code from the store, whatever the files are now, for as long as it is pinned."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harn.testing.server import GITHUB_SECRET, ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text
from tests.integration.test_watch import WatchCase

HELD = trigger_text("gh", handler="handlers:held")


class RollbackCase(ServerCase):
    """A server that is rolled back."""

    def roll_back(self, server: ServerProcess, generation: int | None = None) -> dict[str, Any]:
        """Perform a rollback; return the report."""
        answer = server.admin("POST", "/admin/rollback", {} if generation is None else {"generation": generation})
        self.assertEqual(answer.status, 200, answer)
        report: dict[str, Any] = answer.json()
        return report

    def modify(self, server: ServerProcess, version: str) -> None:
        """Reload with another version of the handlers' code."""
        self.write_handlers(version)
        self.assertEqual(server.reload().json()["summary"]["modified"], ["gh"])

    def assert_version(self, server: ServerProcess, key: str, version: str, binding: str) -> None:
        """See which code handles a delivery, and as which version."""
        self.assert_accepted(server.deliver("/triggers/gh", delivery=key), binding=binding)
        [seen] = self.wait_handled(key)
        self.assertEqual((seen["version"], seen["binding"]), (version, binding))


class ContentTests(RollbackCase):
    """What a rollback brings back."""

    def test_without_the_files(self) -> None:
        """Manifest and code, packages too, come from the store though the files are gone; what ran ends as it began."""
        self.write("pack/__init__.py", "")
        self.write("pack/deep.py", 'VALUE = "deep one"\n')
        more = (
            "from pack.deep import VALUE\n\n\ndef deep(event, context):\n    note(key=event.dedupe_key, deep=VALUE)\n"
        )
        self.write_handlers(more=more)
        deep = trigger_text("deep", handler="handlers:deep")
        self.write_manifest(HELD, deep)
        server = self.serve()
        self.write("pack/deep.py", 'VALUE = "deep two"\n')
        self.write_handlers("two", more)
        self.write_manifest(HELD, trigger_text("new"))
        self.assert_reloaded(server.reload(), added=["new"], modified=["gh"], removed=["deep"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="bad"), binding="gh@v2")
        self.wait_begun("bad")
        for name in ("handlers.py", "pack/deep.py", "pack/__init__.py", "harn.toml"):
            (self.directory / name).unlink()
        report = self.roll_back(server)
        expected = {"added": ["deep"], "modified": ["gh"], "removed": ["new"], "unchanged": []}
        self.assertEqual((report["generation"], report["recalled"], report["summary"]), (3, 1, expected))
        self.assertEqual([each["binding"] for each in report["draining"]], ["gh@v2"])
        self.assertTrue(report["drift"])
        self.assertLessEqual(
            {str(self.directory / name) for name in ("handlers.py", "harn.toml")}, set(report["drifted_files"])
        )
        self.assert_problem(server.deliver("/triggers/new", delivery="d0"), 404)
        self.assert_accepted(server.deliver("/triggers/deep", delivery="d1"), "deep", "deep@v2")
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["deep"], "deep one")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="good"), binding="gh@v3")
        self.wait_begun("good")
        self.release()
        versions = {each["key"]: (each["version"], each["binding"]) for each in self.wait_handled("bad", "good")}
        self.assertEqual(versions, {"bad": ("two", "gh@v2"), "good": ("one", "gh@v3")})
        live = server.generation()
        self.assertEqual((live["drift"], live["recalled"], live["source"]), (True, 1, "rollback"))
        # Once the files are as they were, nothing differs any more.
        self.write("pack/__init__.py", "")
        self.write("pack/deep.py", 'VALUE = "deep one"\n')
        self.write_handlers(more=more)
        self.write_manifest(HELD, deep)
        self.assertFalse(server.generation()["drift"])
        self.assert_reloaded(server.reload(), unchanged=["deep", "gh"])

    def test_there_and_back(self) -> None:
        """Numbers only rise: a rollback of a rollback, one to a named generation, and one to the live one."""
        server = self.serve()
        self.modify(server, "two")
        self.modify(server, "three")
        self.assertEqual(self.roll_back(server, 1)["generation"], 4)
        self.assert_version(server, "d1", "one", "gh@v4")
        self.assertEqual(self.roll_back(server)["generation"], 5)
        self.assert_version(server, "d2", "three", "gh@v5")
        self.assertEqual(self.roll_back(server, 2)["generation"], 6)
        self.assert_version(server, "d3", "two", "gh@v6")
        same = self.roll_back(server, 2)
        self.assertEqual((same["generation"], same["summary"]["unchanged"]), (6, ["gh"]))
        history = self.checked("history")
        recalled = {each["generation"]: each["recalled"] for each in history}
        self.assertEqual(recalled, {1: None, 2: None, 3: None, 4: 1, 5: 3, 6: 2})
        self.assertEqual([each["generation"] for each in history if each["live"]], [6])

    def test_secrets(self) -> None:
        """No secret is ever in the store, the history or a diff; a rollback uses the current ones."""
        secret = self.write("secret", "old-value-of-it\n")
        self.environ["HARN_SECRET_GITHUB_ROTATING_FILE"] = str(secret)
        self.write_manifest(trigger_text("gh", secret="rotating"))
        server = self.serve()
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1", secret=b"old-value-of-it"))
        secret.write_text("new-value-of-it\n")
        self.modify(server, "two")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2", secret=b"new-value-of-it"))
        self.assertEqual(self.roll_back(server)["recalled"], 1)
        self.assert_problem(server.deliver("/triggers/gh", delivery="d3", secret=b"old-value-of-it"), 401)
        answer = server.deliver("/triggers/gh", delivery="d4", secret=b"new-value-of-it")
        self.assert_accepted(answer, binding="gh@v3")
        self.wait_handled("d1", "d2", "d4")
        told = [self.checked("history"), self.checked("show", "1", "--sources"), self.checked("diff", "1", "2")]
        files = list(server.state_dir.rglob("*"))
        self.assertIn(server.state_dir / "events.sqlite", files)
        kept = [path.read_bytes() for path in files if path.is_file()]
        self.assertEqual(server.terminate(), 0)
        kept += [path.read_bytes() for path in server.state_dir.rglob("*") if path.is_file()]
        for value in (b"old-value-of-it", b"new-value-of-it", GITHUB_SECRET):
            self.assertNotIn(value.decode(), json.dumps(told) + server.stderr)
            self.assertFalse(any(value in content for content in kept), value)
        # The search does find what is kept: the names of secrets, the code.
        self.assertTrue(any(b"github/rotating" in content for content in kept))


class RefusedTests(RollbackCase):
    """Rollbacks that cannot be."""

    def test_unknown(self) -> None:
        """A generation that is not kept, or none before, is exit 1 and a 4xx in words; nothing changes."""
        server = self.serve()
        for words, body in ((("rollback", "7"), {"generation": 7}), (("rollback",), {})):
            done = self.orchestrator(*words)
            self.assertEqual((done.status, done.stdout), (1, ""), done)
            self.assertRegex(done.stderr, r"error: .*generation")
            self.assert_problem(server.admin("POST", "/admin/rollback", body), 404)
        number: object
        for number in (0, -1, "1", 1.5, 2**63, True, []):
            self.assert_problem(server.admin("POST", "/admin/rollback", {"generation": number}), 400)
        self.assertEqual(server.generation()["generation"], 1)
        self.assertEqual(len(server.records("orchestrator.manifest")), 1)

    def test_secret_that_is_gone(self) -> None:
        """An earlier generation whose secret is gone is refused as any reload is; the live one continues."""
        secret = self.write("secret", "value\n")
        self.environ["HARN_SECRET_GITHUB_ROTATING_FILE"] = str(secret)
        self.write_manifest(trigger_text("gh", secret="rotating"))
        server = self.serve()
        self.write_handlers("two")
        self.write_manifest(trigger_text("gh"))
        self.assert_reloaded(server.reload(), modified=["gh"])
        secret.unlink()
        report = self.assert_failed(server.admin("POST", "/admin/rollback", {}), "resolve")
        self.assertIn("github/rotating", json.dumps(report["problems"]))
        self.assertEqual(report["generation"], 2)
        self.assert_version(server, "d1", "two", "gh@v2")
        self.assertEqual(server.generation()["last_failed"]["source"], "rollback")

    def test_race(self) -> None:
        """Of deployers who go out from one generation, reloading or rolling back, one gets through; the others 412."""
        server = self.serve()
        self.modify(server, "two")
        self.write_handlers("three")
        for turn in range(4):
            etag = server.admin("GET", "/admin/generation").headers["etag"]
            generation = server.generation()["generation"]
            targets = ("/admin/reload?force=true", "/admin/rollback?force=true") * 3

            def ask(target: str, etag: str = etag) -> tuple[int, dict[str, Any]]:
                answer = server.admin("POST", target, {}, {"If-Match": etag})
                return answer.status, answer.json()

            with ThreadPoolExecutor(len(targets)) as pool:
                answers = list(pool.map(ask, targets))
            self.assertEqual(sorted(status for status, _ in answers), [200, *[412] * (len(targets) - 1)], turn)
            [won] = [report for status, report in answers if status == 200]
            self.assertEqual((won["generation"], server.generation()["generation"]), (generation + 1, generation + 1))
            for detail in (report["detail"] for status, report in answers if status == 412):
                self.assertIn(etag.strip('"'), detail)


class RestartTests(RollbackCase):
    """What the next server begins with."""

    def test_restart(self) -> None:
        """A restart, and one after a kill, continue with what was rolled back to, until the files have changed."""
        server = self.serve()
        self.modify(server, "two")
        self.roll_back(server)
        server = self.restart(server)
        self.assertEqual((server.generation()["generation"], server.generation()["drift"]), (3, True))
        self.assert_version(server, "d1", "one", "gh@v3")
        server.kill()
        server = self.serve()
        self.assert_version(server, "d2", "one", "gh@v3")
        self.assertEqual(server.generation()["recalled"], 1)
        # An explicit reload always takes the files.
        self.assert_reloaded(server.reload(), modified=["gh"])
        self.assert_version(server, "d3", "two", "gh@v4")
        # Files that have changed since a rollback are adopted by a restart.
        self.assertEqual(self.roll_back(server)["generation"], 5)
        self.assertEqual(server.terminate(), 0)
        self.write_handlers("three")
        server = self.serve()
        self.assertEqual((server.generation()["generation"], server.generation()["drift"]), (6, False))
        self.assert_version(server, "d4", "three", "gh@v6")


class WatchTests(RollbackCase, WatchCase):
    """Rollbacks under ``--watch``, over a restart."""

    def test_watch_over_a_restart(self) -> None:
        """The next server's watcher leaves alone, too, what was rolled back, until its bytes change."""
        server = self.serve("--watch")
        self.write_handlers("two")
        self.wait_generation(server, 2)
        self.roll_back(server)
        server = self.restart(server, "--watch")
        (self.directory / "handlers.py").touch()
        self.write_handlers("two")
        self.assertEqual(server.generation()["generation"], 3)
        self.write_handlers("six")
        self.wait_generation(server, 4)
        wait_until(lambda: not server.generation()["drift"], "the edit to be adopted")
        RollbackCase.assert_version(self, server, "d1", "six", "gh@v4")
        good = ("file_watch", "succeeded")
        self.assert_reloads(server, good, ("rollback", "succeeded"), good)

    def test_secrets_rotate_after_a_rollback(self) -> None:
        """A secret that is rotated after a rollback counts at once; the code that was rolled back from stays away."""
        secret = self.write("secret", "old\n")
        self.environ["HARN_SECRET_GITHUB_ROTATING_FILE"] = str(secret)
        self.write_manifest(trigger_text("gh", secret="rotating"))
        server = self.serve("--watch")
        self.write_handlers("two")
        self.wait_generation(server, 2)
        self.roll_back(server)
        secret.write_text("new\n")
        self.wait_generation(server, 4)
        self.assert_problem(server.deliver("/triggers/gh", delivery="d1", secret=b"old"), 401)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2", secret=b"new"), binding="gh@v3")
        self.assertEqual(self.wait_handled("d2")[0]["version"], "one")
        self.assertEqual(server.generation()["recalled"], 1)
        self.assertIn(f"read again: secret github/rotating, file {secret}", server.stderr)
        server = self.restart(server, "--watch")
        self.assertEqual((server.generation()["generation"], server.generation()["recalled"]), (4, 1))
        good, rotated = ("file_watch", "succeeded"), ("file_watch", "succeeded")
        self.assert_reloads(server, good, ("rollback", "succeeded"), rotated)
        self.write_handlers("six")
        self.wait_generation(server, 5)
        self.assertIsNone(server.generation()["recalled"])
