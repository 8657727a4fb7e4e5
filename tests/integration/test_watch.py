"""``--watch``: which changes of files lead to a reload, and which do not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from harn.testing.server import SERVE, ServerProcess, wait_until
from tests.integration.case import HANDLERS, ServerCase, trigger_text
from tests.sockets import bind_in

WAITS = "nothing is adopted until then"
"""What the server says when it sees files that it will not take for a change."""

WRITER = """
import sys, time
path, text = sys.argv[1:]
stalls, last = 0, time.monotonic()
for index in range(1500):
    with open(path, "w") as file:
        file.write(text.replace('"one"', f'"{index}"'))
    now = time.monotonic()
    stalls += now - last > 0.04
    last = now
    time.sleep(0.0015)
print(stalls)
"""
"""Writes a file in place, again and again, for some seconds; says how often it was held up."""


class WatchCase(ServerCase):
    """
    A server that watches its files, and the reloads that this led to.

    :ivar expected: how many reloads there should have been so far.
    """

    def setUp(self) -> None:
        super().setUp()
        self.expected = 0

    def reloads(self, server: ServerProcess) -> list[tuple[str, str]]:
        """Return source and kind of the reloads so far, the first start left out."""
        records = server.records("orchestrator.manifest")
        return [(each["payload"]["source"], each["kind"]) for each in records if each["payload"]["source"] != "start"]

    def assert_reloads(self, server: ServerProcess, *expected: tuple[str, str]) -> None:
        """Wait until there have been so many reloads, and see that they are these, by source and outcome."""
        wait_until(lambda: len(self.reloads(server)) >= len(expected), f"{len(expected)} records of reloads")
        self.assertEqual([(source, kind.removeprefix("reload_")) for source, kind in self.reloads(server)], [*expected])

    def assert_adopted(self, server: ServerProcess) -> None:
        """See one more reload than before, no other, and that what is live is what the files say."""
        self.expected += 1
        wait_until(lambda: len(self.reloads(server)) >= self.expected, f"reload {self.expected}: {server.lines[-5:]}")
        wait_until(lambda: not server.generation()["drift"], "what is live to be what the files say")
        self.assertEqual(self.reloads(server), [("file_watch", "reload_succeeded")] * self.expected, server.stderr)
        self.assertEqual(server.generation()["generation"], self.expected + 1)

    def assert_nothing_came(self, server: ServerProcess) -> None:
        """See that what was done before led to no reload: the one of a further edit is the next."""
        self.write_manifest(trigger_text("gh", extra=f"[triggers.retry]\nmax = {self.expected + 20}"))
        self.assert_adopted(server)

    def handlers(self, version: str) -> str:
        """Return the text of ``handlers.py`` as of a version; of versions of one length it is of one length."""
        return HANDLERS.replace('"one"', f'"{version}"')

    def assert_version(self, server: ServerProcess, version: str) -> None:
        """See which handlers are live."""
        key = f"{version}-{self.expected}"
        self.assert_accepted(server.deliver("/triggers/gh", delivery=key))
        [seen] = self.wait_handled(key)
        self.assertEqual(seen["version"], version)

    def wait_declined(self, server: ServerProcess, since: int) -> None:
        """Wait until the server has seen, after so many lines, that it cannot adopt what is there."""
        wait_until(lambda: any(WAITS in line for line in server.lines[since:]), "the server to see what is wrong")


class EditTests(WatchCase):
    """Edits of a manifest and of modules, in every manner of editors and tools."""

    def test_edits(self) -> None:
        """An edit in place, an atomic rename and an edit of a handler's module each lead to one reload."""
        server = self.serve("--watch")
        (self.directory / "harn.toml").write_text(trigger_text("gh", extra="[triggers.retry]\nmax = 2"))
        self.assert_adopted(server)
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 3"))
        self.assert_adopted(server)
        self.write_handlers("two")
        self.assert_adopted(server)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v4")
        [seen] = self.wait_handled("d1")
        self.assertEqual(seen["version"], "two")
        self.assertEqual(server.generation()["source"], "file_watch")
        # Of the same size, within the same second.
        self.write_handlers("six")
        self.assert_adopted(server)
        self.assert_version(server, "six")

    def test_what_does_not_count(self) -> None:
        """Touched files, other files beside them, and the state directory's own writes lead to no reload."""
        server = self.serve("--watch", state_dir="state")
        os.utime(self.directory / "harn.toml")
        os.utime(self.directory / "handlers.py")
        (self.directory / "handlers.py").write_text((self.directory / "handlers.py").read_text())
        self.write("notes.txt", "not ours")
        self.write("unrelated.py", "not ours")
        for index in range(20):
            self.assert_accepted(server.deliver("/triggers/gh", delivery=f"d{index}"))
        self.assert_nothing_came(server)

    def test_vim(self) -> None:
        """As vim saves: a file to try, the old one renamed to a backup, the new one made, the backup deleted."""
        server = self.serve("--watch")
        for version in ("two", "six"):
            path, backup, trial = (self.directory / name for name in ("handlers.py", "handlers.py~", "4913"))
            trial.touch()
            trial.unlink()
            path.rename(backup)
            path.write_text(self.handlers(version))
            path.chmod(0o644)
            backup.unlink()
            self.assert_adopted(server)
            self.assert_version(server, version)

    def test_emacs(self) -> None:
        """As emacs saves: a lock that leads nowhere, an automatic copy, a backup, the file written again."""
        server = self.serve("--watch")
        for version in ("two", "six"):
            lock, copy, backup = (self.directory / name for name in (".#handlers.py", "#handlers.py#", "handlers.py~"))
            lock.symlink_to("somebody@somewhere.1:2")
            copy.write_text(self.handlers(version))
            (self.directory / "handlers.py").rename(backup)
            (self.directory / "handlers.py").write_text(self.handlers(version))
            copy.unlink()
            lock.unlink()
            self.assert_adopted(server)
            self.assert_version(server, version)

    def test_truncated_then_written(self) -> None:
        """Files that are empty for a while and then written piece by piece are taken up once, whole."""
        server = self.serve("--watch")
        for name, text in (
            ("handlers.py", self.handlers("two")),
            ("harn.toml", trigger_text("gh") + trigger_text("other")),
        ):
            said = len(server.lines)
            with open(self.directory / name, "w") as file:
                self.wait_declined(server, said)
                for start in range(0, len(text), 40):
                    file.write(text[start : start + 40])
                    file.flush()
            self.assert_adopted(server)
        self.assert_version(server, "two")
        self.assertEqual(len(server.bindings()), 2)

    def test_git_checkout(self) -> None:
        """A checkout that changes, adds and removes several files at once leads to one reload."""
        if shutil.which("git") is None:
            raise SkipTest("there is no git here")

        def git(*arguments: str) -> None:
            who = ("-c", "user.name=somebody", "-c", "user.email=somebody@harn.test", "-c", "commit.gpgsign=false")
            environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
            subprocess.run(["git", *who, *arguments], cwd=self.directory, env=environ, check=True, capture_output=True)

        git("init", "-q")
        self.write_manifest(trigger_text("gh"))
        self.write("handlers.py", "from early import VALUE\n" + self.handlers("one"))
        self.write("early.py", "VALUE = 1\n")
        git("add", "harn.toml", "handlers.py", "early.py")
        git("commit", "-qm", "one")
        git("tag", "v1")
        self.write_manifest(trigger_text("gh"), trigger_text("more"))
        self.write("handlers.py", "from pack.late import VALUE\n" + self.handlers("two"))
        self.write("pack/late.py", "VALUE = 2\n")
        (self.directory / "early.py").unlink()
        git("add", "-A", "harn.toml", "handlers.py", "early.py", "pack")
        git("commit", "-qm", "two")
        git("tag", "v2")
        git("checkout", "-q", "v1")
        server = self.serve("--watch")
        for tag, version, triggers in (("v2", "two", 2), ("v1", "one", 1), ("v2", "two", 2)):
            git("checkout", "-q", tag)
            self.assert_adopted(server)
            self.assert_version(server, version)
            live = [each for each in server.bindings() if each["state"] == "active"]
            self.assertEqual(len(live), triggers)

    def test_flood(self) -> None:
        """Hundreds of writes a second lead to one reload when they rest, and cost neither threads nor files."""
        server = self.serve("--watch")
        self.write_handlers("two")
        self.assert_adopted(server)
        tasks = len(os.listdir(f"/proc/{server.pid}/task"))
        descriptors = server.descriptors()
        command = [sys.executable, "-c", WRITER, str(self.directory / "handlers.py"), HANDLERS]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        wait_until(lambda: len(self.reloads(server)) > 1 and not server.generation()["drift"], "the last write")
        self.assert_version(server, "1499")
        # Where a busy machine held the writer up, its files were at rest indeed.
        self.assertLessEqual(len(self.reloads(server)), 2 + int(done.stdout))
        self.assertLessEqual(
            len(os.listdir(f"/proc/{server.pid}/task")), tasks + 10
        )  # the reactor's pool grows on demand
        self.assertLessEqual(server.descriptors(), descriptors + 4)

    def test_credential_file(self) -> None:
        """A file of keys that changes leads to a reload by itself."""
        keys = self.write("keys/admin", "first\n")
        del self.environ["HARN_ORCHESTRATOR_API_KEYS"]
        self.environ["HARN_ORCHESTRATOR_API_KEYS_FILE"] = str(keys)
        server = self.serve("--watch")
        keys.write_text("second\n")
        wait_until(lambda: server.admin("GET", "/admin/generation", key="second").status == 200, "the new key")
        self.assert_problem(server.admin("GET", "/admin/generation", key="first"), 401)


class FailureTests(WatchCase):
    """Changes that are refused, and changes that are certainly mistakes."""

    def test_broken_and_mended(self) -> None:
        """A broken manifest is refused and reported; the corrected one is adopted automatically."""
        server = self.serve("--watch")
        self.write("harn.toml", "nonsense [")
        self.wait_last_reload(server, lambda last: last["status"] == "error" and last["source"] == "file_watch")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 2"))
        self.wait_generation(server, 2)
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d2"), binding="gh@v2")

    def test_broken_and_put_back(self) -> None:
        """When a refused manifest is put back as it was, one reload says that all is well again."""
        server = self.serve("--watch")
        before = (self.directory / "harn.toml").read_text()
        self.write("harn.toml", "nonsense [")
        self.wait_last_reload(server, lambda last: last["status"] == "error")
        self.replace("harn.toml", before)
        self.wait_last_reload(server, lambda last: last["status"] == "ok")
        metrics = server.request("GET", "/metrics").body.decode()
        self.assertIn("harn_reload_last_status 1.0", metrics)
        self.assertEqual(server.generation()["generation"], 1)
        self.assert_reloads(server, ("file_watch", "failed"), ("file_watch", "succeeded"))

    def test_held(self) -> None:
        """A change that would remove most triggers is held; made whole it is adopted, once confirmed it stays."""
        whole = tuple(trigger_text(f"t{index}") for index in range(4))
        self.write_manifest(*whole)
        server = self.serve("--watch")
        self.write_manifest(whole[0])
        self.wait_last_reload(server, lambda last: last["status"] == "needs_confirmation")
        self.write_manifest(*whole)
        self.wait_last_reload(server, lambda last: last["status"] == "ok")
        self.assertEqual(server.generation()["generation"], 1)
        self.write_manifest(whole[0])
        self.wait_last_reload(server, lambda last: last["status"] == "needs_confirmation")
        self.assert_reloaded(server.reload(), removed=["t1", "t2", "t3"], unchanged=["t0"])
        os.utime(self.directory / "harn.toml")
        self.write_handlers("two")
        self.wait_generation(server, 3)
        held, good = ("file_watch", "held"), ("file_watch", "succeeded")
        self.assert_reloads(server, held, good, held, ("admin_api", "succeeded"), good)

    def test_unsettled(self) -> None:
        """A manifest that is missing for half a minute is reported; back as it was, all is well again."""
        server = self.serve("--watch")
        before = (self.directory / "harn.toml").read_text()
        (self.directory / "harn.toml").unlink()
        wait_until(lambda: server.state()["last_reload"]["status"] == "unsettled", "the report")
        last = server.state()["last_reload"]
        self.assertIn("harn.toml is missing; put it back", last["error"])
        self.assertEqual(last["source"], "file_watch")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.replace("harn.toml", before)
        self.wait_last_reload(server, lambda last: last["status"] == "ok")
        self.assertEqual(server.generation()["generation"], 1)

    def test_rollback(self) -> None:
        """What a rollback replaced is left alone while nothing of it changes, touched or written again."""
        server = self.serve("--watch")
        self.write_handlers("two")
        self.assert_adopted(server)
        self.assertEqual(server.admin("POST", "/admin/rollback", {}).status, 200)
        self.assertTrue(server.generation()["drift"])
        self.assert_version(server, "one")
        os.utime(self.directory / "handlers.py")
        self.write_handlers("two")
        self.write("unrelated.py", "")
        self.write_handlers("six")
        wait_until(lambda: not server.generation()["drift"], "the edit to be adopted")
        self.assert_version(server, "six")
        good = ("file_watch", "succeeded")
        self.assert_reloads(server, good, ("rollback", "succeeded"), good)

    def test_manifest_that_goes_and_comes(self) -> None:
        """A manifest that is deleted changes nothing; one that comes back with other triggers is adopted."""
        server = self.serve("--watch")
        (self.directory / "harn.toml").unlink()
        self.wait_declined(server, 0)
        self.assertTrue(server.generation()["drift"])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.write_manifest(trigger_text("gh", extra="[triggers.retry]\nmax = 2"))
        self.assert_adopted(server)

    def test_what_is_no_file(self) -> None:
        """A module that is deleted, or a directory, a pipe, a socket for a while is taken up once when it is back."""
        server = self.serve("--watch")
        path = self.directory / "handlers.py"

        def bind() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                bind_in(self.directory, "handlers.py", sock)

        for index, replace in enumerate((lambda: None, path.mkdir, lambda: os.mkfifo(path), bind)):
            said = len(server.lines)
            path.unlink()
            replace()
            self.wait_declined(server, said)
            if path.is_dir():
                path.rmdir()
            self.write_handlers(f"{index}00")
            self.assert_adopted(server)
            self.assert_version(server, f"{index}00")

    def test_unreadable(self) -> None:
        """A module that may not be read for a while leads to nothing if it comes back as it was."""
        wrapper: tuple[str, ...] = ()
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                raise SkipTest("the superuser may read everything here")
            wrapper = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
        server = self.serve("--watch", launcher=(*wrapper, *SERVE))
        (self.directory / "handlers.py").chmod(0)
        self.wait_declined(server, 0)
        (self.directory / "handlers.py").chmod(0o644)
        wait_until(lambda: not server.generation()["drift"], "the module to be readable")
        self.assert_nothing_came(server)


class PlaceTests(WatchCase):
    """Where files lie: behind links and mounts, and new ones."""

    def test_config_map(self) -> None:
        """The swap of a directory behind links, as Kubernetes mounts a ConfigMap, leads to one reload; so do two."""
        for version, maximum in (("a", 2), ("b", 3), ("c", 4), ("d", 5)):
            self.write(f"..{version}/harn.toml", trigger_text("gh", extra=f"[triggers.retry]\nmax = {maximum}"))
            self.write(f"..{version}/handlers.py", self.handlers(version))
        (self.directory / "..data").symlink_to("..a")
        for name in ("harn.toml", "handlers.py"):
            (self.directory / name).symlink_to(Path("..data") / name)

        def swap(version: str) -> None:
            (self.directory / "..data_tmp").symlink_to(f"..{version}")
            (self.directory / "..data_tmp").replace(self.directory / "..data")

        server = self.serve("--watch")
        swap("b")
        shutil.rmtree(self.directory / "..a")
        self.assert_adopted(server)
        self.assert_version(server, "b")
        swap("c")
        swap("d")
        self.assert_adopted(server)
        self.assert_version(server, "d")

    def test_retargeted_links(self) -> None:
        """A link to a file, or to a directory above it, that leads elsewhere now leads to one reload."""
        for version in ("one", "two", "six"):
            self.write(f"releases/{version}/handlers.py", self.handlers(version))
        (self.directory / "current").symlink_to("releases/one")
        (self.directory / "handlers.py").symlink_to("current/handlers.py")
        server = self.serve("--watch")
        for name, target, version in (
            ("current", "releases/two", "two"),
            ("handlers.py", "releases/six/handlers.py", "six"),
            ("handlers.py", "current/handlers.py", "two"),
        ):
            (self.directory / name).unlink()
            (self.directory / name).symlink_to(target)
            self.assert_adopted(server)
            self.assert_version(server, version)

    def test_bind_mount(self) -> None:
        """A module that is a mount of its own, for which no events come, is polled."""
        mount = 'mount --bind outside.py handlers.py && exec "$@"'
        wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
        outside = self.write("outside.py", self.handlers("two"))
        self.write_handlers("one")
        self.write_manifest()
        can = shutil.which("unshare") is not None
        if not can or subprocess.call([*wrapper, "true"], cwd=self.directory, stderr=subprocess.DEVNULL):
            raise SkipTest("nothing may be mounted here")
        server = self.serve("--watch", launcher=(*wrapper, *SERVE))
        self.assert_version(server, "two")
        outside.write_text(self.handlers("six"))
        self.assert_adopted(server)
        self.assert_version(server, "six")

    def test_directory_that_goes_and_comes(self) -> None:
        """A directory that is deleted and made again, or replaced by another, is watched on."""
        self.write("pack/inner.py", "VALUE = 1\n")
        self.write("handlers.py", "import pack.inner\n" + self.handlers("one"))
        server = self.serve("--watch")
        shutil.rmtree(self.directory / "pack")
        self.wait_declined(server, 0)
        self.write("pack/inner.py", "VALUE = 2\n")
        self.assert_adopted(server)
        self.write("pack/inner.py", "VALUE = 3\n")
        self.assert_adopted(server)
        self.write("other/inner.py", "VALUE = 4\n")
        (self.directory / "pack").rename(self.directory / "old")
        (self.directory / "other").rename(self.directory / "pack")
        self.assert_adopted(server)
        self.write("pack/inner.py", "VALUE = 5\n")
        self.assert_adopted(server)

    def test_new_module(self) -> None:
        """A module that an edit of the manifest brings in is watched from then on."""
        server = self.serve("--watch")
        self.write("fresh.py", "from handlers import on_event\n")
        self.write_manifest(trigger_text("gh", handler="fresh:on_event"))
        self.assert_adopted(server)
        self.write("fresh.py", "from handlers import on_event\nEDITED = True\n")
        self.assert_adopted(server)

    def test_new_module_that_an_old_import_means(self) -> None:
        """A module that appears and makes an import of a live one local is taken up, though nothing else changed."""
        self.write("handlers.py", "try:\n    import extra\nexcept ImportError:\n    pass\n" + self.handlers("one"))
        server = self.serve("--watch")
        self.write("unrelated.py", "")
        self.write("extra.py", "")
        self.assert_adopted(server)
        self.assertIn("extra.py", str(server.generation()["files"]))

    def test_new_match_of_a_pattern(self) -> None:
        """A module that a pattern of the manifest matches is adopted when it appears, dropped when it disappears."""
        self.write("rules/one.py", "")
        self.write_manifest(head='[orchestrator.vm]\ninclude = ["rules/*.py"]\n')
        server = self.serve("--watch")
        self.write("rules/two.py", "")
        self.assert_adopted(server)
        self.assertIn("rules/two.py", str(server.generation()["files"]))
        (self.directory / "rules" / "one.py").unlink()
        self.assert_adopted(server)
        self.assertNotIn("rules/one.py", str(server.generation()["files"]))
