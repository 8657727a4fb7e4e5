"""Reloads that fail, at every stage: the old generation serves as before, and nothing of the new one stays."""

from __future__ import annotations

import resource
import signal
import sqlite3
from pathlib import Path
from typing import Any

from harn.testing.server import ServerProcess, wait_until
from tests.integration.case import ServerCase, trigger_text

PLUGIN = '''
import os

import msgspec
from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from harn.interfaces import PUBLIC, Events, IConnectorPlugin, IReceiver, StructSchema


class Settings(msgspec.Struct, frozen=True):
    fails: str = ""


@implementer(IReceiver)
class Flaky:
    """Acquires an open file and fails where it is told to."""

    def __init__(self, context):
        self.settings = msgspec.convert(context.binding.settings, Settings, from_attributes=True)
        self.file = None

    def fail(self, stage):
        fails = self.settings.fails
        if fails == stage:
            raise RuntimeError("the flaky connector fails in " + stage)
        if fails == stage + "-exit":
            raise SystemExit(3)
        if fails == stage + "-hang":
            return Deferred()

    def prepare(self):
        self.file = open(os.environ["TEST_SEEN"] + ".connector", "a")
        return self.fail("prepare")

    def activate(self):
        return self.fail("activate")

    def quiesce(self):
        pass

    def close(self):
        if self.file is not None:
            self.file.write("closed\\n")
            self.file.close()
            self.file = None

    def verify(self, inbound, now):
        pass

    def normalize(self, inbound):
        return Events(())


@implementer(IPlugin, IConnectorPlugin)
class FlakyPlugin:
    provider = "flaky"
    kinds = ("webhook",)
    table = "flaky"
    schema = StructSchema(Settings)
    required_secrets = ()
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context):
        return Flaky(context)


flaky = FlakyPlugin()
'''


def flaky(fails: str) -> str:
    """Write a trigger of the third-party connector that fails like this."""
    return trigger_text("flaky", provider="flaky", events=(), secret=None, extra=f'[triggers.flaky]\nfails = "{fails}"')


class FailureCase(ServerCase):
    """A server of generation 1, and a record of its state."""

    def setUp(self) -> None:
        """Put the third-party plugin on the path."""
        super().setUp()
        self.write("site/harn/plugins/flaky.py", PLUGIN)
        self.environ["PYTHONPATH"] += ":" + str(self.directory / "site")

    def likeness(self, server: ServerProcess) -> dict[str, Any]:
        """Return everything that a failed reload must not change."""
        live = server.generation()
        return {
            "generation": [live[name] for name in ("generation", "digest", "source", "actor")],
            "bindings": [(each["id"], each["version"], each["state"]) for each in server.bindings()],
            "unknown": server.request("POST", "/nope").body,
            "refused": server.request("POST", "/triggers/gh", b"{}").body,
            "children": len(server.children()),
        }

    def assert_undone(self, server: ServerProcess, before: dict[str, Any], descriptors: int) -> None:
        """See that the server is as it was, down to its processes and open files, and serves."""
        wait_until(
            lambda: len(server.children()) == before["children"],
            f"{before['children']} children; there are {server.children()}",
        )
        wait_until(
            lambda: server.descriptors() <= descriptors,
            f"{descriptors} open files; there are {server.descriptors()}",
        )
        self.assertEqual(self.likeness(server), before)
        key = f"after-{len(self.handled())}"
        answer = server.deliver("/triggers/gh", delivery=key)
        self.assert_accepted(answer, binding="gh@v1")
        self.assertEqual(answer.headers["harn-generation"], "1")
        [seen] = self.wait_handled(key)
        self.assertEqual((seen["version"], seen["binding"]), ("one", "gh@v1"))

    def settled(self, server: ServerProcess) -> tuple[dict[str, Any], int]:
        """Return the likeness and the number of open files at rest: an interpreter, and a warm spare."""
        self.assert_accepted(server.deliver("/triggers/gh", delivery="before"))
        self.wait_handled("before")
        wait_until(lambda: len(server.children()) == 2, "the interpreter and its spare")
        return self.likeness(server), server.descriptors()


class AuthorTests(FailureCase):
    """Failures that the manifest's author can correct."""

    def test_manifest_and_code(self) -> None:
        """Bad TOML, bad keys, missing code and code that cannot be imported: 422, the stage named, all undone."""
        self.write_manifest()
        server = self.serve()
        before, descriptors = self.settled(server)
        self.write("raises.py", "raise RuntimeError('not today')\n")
        self.write("exits.py", "raise SystemExit(3)\n")
        self.write("dies.py", "import os\nos._exit(3)\n")
        self.write("syntax.py", "def on_event(:\n")
        self.write("plain.py", "on_event = 7\n")
        same = 'path = "/same"'
        clash = trigger_text("a", extra=same) + "\n" + trigger_text("b", extra=same, secret="another-secret")
        cases = (
            *(("parse", "nonsense ["), ("validate", trigger_text("gh", extra='filtre = "x"'))),
            *(("validate", trigger_text("gh", extra='path = "/health"')), ("validate", clash)),
            *(("validate", trigger_text("gh") + "\n" + trigger_text("gh")), ("validate", '[package]\nname = "x"')),
            ("validate", trigger_text("gh", extra="filter = 'event.('")),
            *(
                ("resolve", trigger_text("gh", handler="nowhere:on_event")),
                ("resolve", trigger_text("gh", secret="no")),
            ),
            ("resolve", trigger_text("gh", handler="handlers:nothing")),
            *(("resolve", trigger_text("gh", handler=f"{name}:on_event")) for name in ("raises", "exits", "dies")),
            *(("resolve", trigger_text("gh", handler=f"{name}:on_event")) for name in ("syntax", "plain")),
        )
        for stage, text in cases:
            self.write("harn.toml", text)
            answer = server.reload()
            report = self.assert_failed(answer, stage)
            self.assertTrue(report["problems"], (text, report))
            self.assertEqual(report["generation"], 1)
        self.assert_undone(server, before, descriptors)
        self.assertEqual(server.state()["last_reload"]["status"], "error")
        self.write_manifest()
        self.assert_reloaded(server.reload(), unchanged=["gh"])

    def test_path_clash_names_both(self) -> None:
        """Two triggers on one path that verify requests differently: the problem names both."""
        server = self.serve()
        same = 'path = "/same"'
        self.write_manifest(trigger_text("a", extra=same), trigger_text("b", extra=same, secret="another-secret"))
        report = self.assert_failed(server.reload(), "validate")
        text = str(report["problems"])
        for name in ("a", "b", "/same"):
            self.assertIn(name, text)

    def test_every_problem_at_once(self) -> None:
        """A report lists every problem that its stage can see, with their lines rising."""
        server = self.serve()
        triggers = [trigger_text(f"t{index}", extra='filtre = "x"\ntimeout = "soon"') for index in range(5)]
        self.write_manifest(*triggers)
        report = self.assert_failed(server.reload(), "validate")
        self.assertEqual(len(report["problems"]), 10)
        lines = [each["line"] for each in report["problems"]]
        self.assertEqual(lines, sorted(lines))

    def test_import_that_hangs(self) -> None:
        """A module that hangs at import is cut off at ``[orchestrator.reload] timeout``: 504, its process gone."""
        self.write_manifest(head='[orchestrator.reload]\ntimeout = "1s"')
        server = self.serve()
        before, descriptors = self.settled(server)
        self.write_handlers("two", "while True:\n    pass\n")
        report = self.assert_failed(server.reload(), "resolve", 504)
        self.assertEqual(report["generation"], 1)
        self.assert_undone(server, before, descriptors)

    def test_termination_during_a_reload_that_hangs(self) -> None:
        """SIGTERM works while a reload hangs in an import."""
        server = self.serve()
        self.write_handlers("two", "note(imports=VERSION)\nwhile True:\n    pass\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: any("imports" in each for each in self.seen()), "the reload to hang")
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v1")
        self.wait_handled("d1")
        self.assertEqual(server.terminate(), 0, server.stderr)


class ConnectorTests(FailureCase):
    """A third-party connector that fails."""

    def test_stages(self) -> None:
        """Whatever it raises in prepare or activate, SystemExit too, fails that stage with 500 and is undone."""
        server = self.serve()
        before, descriptors = self.settled(server)
        for count, fails in enumerate(("prepare", "prepare-exit", "activate", "activate-exit"), 1):
            self.write_manifest(trigger_text("gh"), flaky(fails))
            report = self.assert_failed(server.reload(), fails.partition("-")[0], 500)
            self.assertIn("flaky", str(report), fails)
            self.assert_closed(count)
            self.assertIsNone(server.process.poll())
        self.assert_undone(server, before, descriptors)
        self.write_manifest(trigger_text("gh"), flaky(""))
        report = self.assert_reloaded(server.reload(), added=["flaky"], unchanged=["gh"])
        self.assertEqual(report["generation"], 2)
        answer = server.request("POST", "/triggers/flaky", b"{}")
        self.assertEqual(answer.json(), {"status": "ignored", "trigger_id": "flaky"})

    def assert_closed(self, count: int) -> None:
        """See that so many connectors have been closed so far."""
        notes = Path(f"{self.seen_path}.connector")
        wait_until(lambda: notes.read_text().count("closed") >= count, f"{count} connectors to be closed")

    def test_hanging(self) -> None:
        """One that hangs is cut off in time: 504, and nothing of it stays."""
        head = '[orchestrator.reload]\ntimeout = "3s"\n'  # enough for the stages before, on a slow machine too
        self.write_manifest(head=head)
        server = self.serve()
        before, descriptors = self.settled(server)
        for stage in ("prepare", "activate"):
            self.write_manifest(trigger_text("gh"), flaky(f"{stage}-hang"), head=head)
            self.assert_failed(server.reload(), stage, 504)
        self.assert_undone(server, before, descriptors)

    def test_settings(self) -> None:
        """Its table is checked by its own schema, at validate, with file and line."""
        server = self.serve()
        self.write_manifest(trigger_text("gh"), flaky("").replace("fails", "fales"))
        report = self.assert_failed(server.reload(), "validate")
        [problem] = report["problems"]
        self.assertIn("triggers[1] (flaky)", problem["where"])
        self.assertIn("fails", problem["hint"] + problem["message"])


class DiskTests(FailureCase):
    """Storage that fails."""

    def test_full_disk(self) -> None:
        """When nothing more can be written the reload fails before the swap; with space again it goes through."""
        server = self.serve()
        before, descriptors = self.settled(server)
        self.write_handlers("two")
        unlimited = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, unlimited[1]))
        answer = server.reload()
        self.assertEqual(server.request("GET", "/health").status, 200)
        refused = server.deliver("/triggers/gh", delivery="lost")
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)
        self.assert_failed(answer, "prepare", 500)
        self.assert_problem(refused, 503)
        self.assert_serves_again(server)
        self.assert_undone(server, before, descriptors)
        report = self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertEqual(report["generation"], 2)

    def assert_serves_again(self, server: ServerProcess) -> None:
        """Wait until the event log takes deliveries again."""
        wait_until(lambda: server.deliver("/triggers/gh", delivery="again").status == 200, "the event log")
        self.wait_handled("again")

    def test_locked_event_log(self) -> None:
        """While another process holds the event log the reload fails before the swap, and the server lives."""
        self.write_manifest(head='[orchestrator.reload]\ntimeout = "5s"')
        server = self.serve()
        before, descriptors = self.settled(server)
        self.write_handlers("two")
        lock = sqlite3.connect(server.state_dir / "events.sqlite", timeout=10.0, isolation_level=None)
        self.addCleanup(lock.close)
        lock.execute("BEGIN EXCLUSIVE")
        answer = server.reload()
        self.assertIn(answer.status, (500, 504), answer)
        self.assertEqual((answer.json()["stage"], answer.json()["generation"]), ("prepare", 1))
        lock.execute("ROLLBACK")
        self.assert_serves_again(server)
        self.assert_undone(server, before, descriptors)
        self.assert_reloaded(server.reload(), modified=["gh"])

    def test_state_file_that_cannot_be_written(self) -> None:
        """A state file that cannot be replaced is a warning of a reload that went well."""
        server = self.serve()
        path = server.state_dir / "orchestrator-state.json"
        path.unlink()
        path.mkdir()
        (path / "in the way").touch()
        self.write_handlers("two")
        report = self.assert_reloaded(server.reload(), modified=["gh"])
        self.assertEqual(len(report["warnings"]), 1, report)
        self.assertIn("orchestrator-state.json", report["warnings"][0])
        self.assert_accepted(server.deliver("/triggers/gh", delivery="d1"), binding="gh@v2")
        self.wait_handled("d1")
        self.assertEqual(server.terminate(), 0, server.stderr)

    def test_manifest_that_cannot_be_read(self) -> None:
        """A manifest that is gone, or a directory, fails at parse."""
        server = self.serve()
        before, descriptors = self.settled(server)
        (self.directory / "harn.toml").unlink()
        for _ in range(2):
            report = self.assert_failed(server.reload(), "parse")
            self.assertIn("harn.toml", report["error"])
            (self.directory / "harn.toml").mkdir(exist_ok=True)
        (self.directory / "harn.toml").rmdir()
        self.write_manifest()
        self.assert_undone(server, before, descriptors)
