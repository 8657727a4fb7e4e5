"""What the black-box tests have in common: a directory with a manifest and handlers, and servers on it."""

from __future__ import annotations

import atexit
import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from harn.testing.manifests import trigger_text
from harn.testing.server import (
    Answer,
    Completed,
    ServerProcess,
    environment,
    run_harn,
    wait_until,
)
from tests.integration.leaks import leaked

HANDLERS = '''
import asyncio, json, os, time

VERSION = "one"


def note(**what):
    """Append one line to the file that the test reads; appends of one write do not mix."""
    file = os.open(os.environ["TEST_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps(what).encode() + b"\\n")
    os.close(file)


def on_event(event, context):
    note(key=event.dedupe_key, id=event.id, version=VERSION, binding=context.binding, attempt=context.attempt)
    return {"version": VERSION, "kind": event.kind, "key": event.dedupe_key}


async def held(event, context):
    """Say that it has begun, then wait until the test lets all continue, or this one."""
    note(began=event.dedupe_key, version=VERSION, binding=context.binding)
    release = os.environ["TEST_RELEASE"]
    while not (os.path.exists(release) or os.path.exists(release + "." + event.dedupe_key)):
        await asyncio.sleep(0.005)
    return on_event(event, context)
'''


def held_trigger(trigger_id: str) -> str:
    """Write a trigger whose handler waits until the test releases it, however slow the machine is."""
    return trigger_text(trigger_id, handler="handlers:held", extra='timeout = "10m"')


# What a reload report and an error report consist of.
REPORT = {
    *("status", "source", "actor", "generation", "digest", "summary", "changes", "draining"),
    *("requires_restart", "warnings", "duration_ms"),
}
ERROR_REPORT = {"status", "source", "actor", "stage", "error", "problems", "generation"}


class ServerCase(SynchronousTestCase):
    """
    A test with servers of its own.

    :ivar directory: where the manifest, its handlers and the state directory lie.
    :ivar environ: what servers and commands are started with.
    """

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir(parents=True)
        self.seen_path = self.directory / "seen.jsonl"
        self.release_path = self.directory / "release"
        self.environ = environment({"TEST_SEEN": str(self.seen_path), "TEST_RELEASE": str(self.release_path)})

    # What the server reads

    def write(self, name: str, text: str) -> Path:
        """Write a file of the directory, its indentation taken off."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def replace(self, name: str, text: str) -> None:
        """Put a file in the place of another in one step, as careful editors do."""
        self.write(name + ".new", text).replace(self.directory / name)

    def write_manifest(self, *triggers: str, head: str = "", name: str = "harn.toml") -> None:
        """Write the manifest: ``head``, then the triggers (one ``gh`` by default)."""
        self.replace(name, head + "\n" + "\n".join(triggers or (trigger_text("gh"),)))

    def write_handlers(self, version: str = "one", more: str = "") -> None:
        """Write ``handlers.py`` as of one version, with further functions."""
        self.replace("handlers.py", HANDLERS.replace('"one"', f'"{version}"') + textwrap.dedent(more))

    def write_missing(self) -> None:
        """Write plain handlers and a plain manifest where the test has written none."""
        if not (self.directory / "handlers.py").exists():
            self.write_handlers()
        if not (self.directory / "harn.toml").exists():
            self.write_manifest()

    # Servers and commands

    def serve(self, *arguments: str, ready: bool = True, **more: Any) -> ServerProcess:
        """Start a server, on a plain manifest where the test has written none; it is ended after the test."""
        self.write_missing()
        server = ServerProcess(self.directory, *arguments, environ=more.pop("environ", self.environ), **more)
        self.addCleanup(self.assert_no_secrets, server)
        self.addCleanup(server.stop)
        return server.wait_ready() if ready else server

    def harn(self, *arguments: str, timeout: float = 180.0) -> Completed:
        """Run a ``harn`` command in the directory."""
        return run_harn(self.directory, *arguments, environ=self.environ, timeout=timeout)

    def orchestrator(self, command: str, *arguments: str) -> Completed:
        """Run a ``harn orchestrator`` command on the test's state directory."""
        return self.harn("orchestrator", command, "--state-dir", "state", *arguments)

    def checked(self, command: str, *arguments: str) -> Any:
        """Run a ``harn orchestrator`` command with ``--json``, see it succeed, and give its answer."""
        done = self.orchestrator(command, *arguments, "--json")
        self.assertEqual(done.status, 0, done)
        return json.loads(done.stdout)

    def ended(self, server: ServerProcess, status: int = 1) -> str:
        """Wait for a server that ends by itself; give what it said."""
        self.assertEqual(server.wait(), status, server.stderr)
        return server.stderr

    def restart(self, server: ServerProcess, *arguments: str) -> ServerProcess:
        """End a server in good order and start another on the same state."""
        self.assertEqual(server.terminate(), 0, server.stderr)
        return self.serve(*arguments)

    # What handlers saw

    def seen(self) -> list[dict[str, Any]]:
        """Read the notes of handlers so far."""
        if not self.seen_path.exists():
            return []
        return [json.loads(line) for line in self.seen_path.read_text().splitlines()]

    def handled(self) -> list[str]:
        """Return the provider's ids of the deliveries that handlers finished, in order."""
        return [each["key"] for each in self.seen() if "key" in each]

    def begun(self) -> list[str]:
        """Return those of the deliveries that the handler ``held`` began."""
        return [each["began"] for each in self.seen() if "began" in each]

    def wait_handled(self, *keys: str) -> list[dict[str, Any]]:
        """Wait until each delivery has been handled; give what was noted of them."""
        wait_until(lambda: set(keys) <= set(self.handled()), f"{keys} among {self.handled()}")
        return [each for each in self.seen() if each.get("key") in keys]

    def wait_begun(self, *keys: str) -> None:
        """Wait until the handler ``held`` has begun each delivery."""
        wait_until(lambda: set(keys) <= set(self.begun()), f"{keys} to begin")

    def release(self, *keys: str) -> None:
        """Release the handler ``held`` for these deliveries, or for all of them from now on."""
        for path in (f"{self.release_path}.{key}" for key in keys) if keys else (self.release_path,):
            Path(path).touch()

    def wait_records(self, server: ServerProcess, topic: str, count: int) -> list[dict[str, Any]]:
        """Wait until a topic has so many records; give them all."""

        def found() -> list[dict[str, Any]] | None:
            records = server.records(topic)
            return records if len(records) >= count else None

        records = wait_until(found, f"{count} records on {topic}")
        assert records is not None
        return records

    # Assertions

    def assert_no_secrets(self, server: ServerProcess) -> None:
        """See that a server wrote none of its secrets, whatever the test was about: each server of the suite."""
        self.assertEqual(leaked(server), [])

    def assert_accepted(self, answer: Answer, trigger_id: str = "gh", binding: str | None = None) -> str:
        """See that a delivery was accepted; give the event's id."""
        self.assertEqual(answer.status, 200, answer)
        document = answer.json()
        self.assertEqual(document["status"], "accepted", answer)
        self.assertEqual(document["trigger_id"], trigger_id)
        if binding is not None:
            self.assertEqual(document["binding"], binding)
        event_id: str = document["event_id"]
        return event_id

    def assert_problem(self, answer: Answer, status: int) -> dict[str, Any]:
        """See that an answer is a problem document of this status; give the document."""
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(answer.headers["content-type"], "application/problem+json", answer)
        document: dict[str, Any] = answer.json()
        self.assertLessEqual({"type", "title", "status", "detail"}, set(document))
        self.assertEqual(document["status"], status)
        return document

    def assert_reloaded(self, answer: Answer, **summary: list[str]) -> dict[str, Any]:
        """See that a reload went well and changed this; give the report."""
        self.assertEqual(answer.status, 200, answer)
        report: dict[str, Any] = answer.json()
        found = {name: ids for name, ids in report["summary"].items() if ids}
        self.assertEqual(found, summary, report)
        return report

    def assert_failed(self, answer: Answer, stage: str, status: int = 422) -> dict[str, Any]:
        """See that a reload failed at a stage; give the report."""
        self.assertEqual(answer.status, status, answer)
        report: dict[str, Any] = answer.json()
        self.assertEqual((report["status"], report["stage"]), ("error", stage), report)
        self.assertLessEqual(ERROR_REPORT, set(report))
        return report

    def wait_generation(self, server: ServerProcess, number: int) -> None:
        """Wait until this generation, or a later one, serves."""
        wait_until(lambda: server.request("GET", f"/readyz?generation={number}").status == 200, f"generation {number}")

    def wait_last_reload(self, server: ServerProcess, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the state file has a last reload that ``matches``; return it."""

        def told() -> dict[str, Any] | None:
            last = server.state().get("last_reload")
            return last if last is not None and matches(last) else None

        found = wait_until(told, f"a reload in the state file; there: {server.state().get('last_reload')}")
        assert found is not None
        return found


class SharedServerCase(ServerCase):
    """
    Tests that share a server: each finds it reloaded with its own files, idle, and sees its own records alone.

    Such a test does not depend on the number of a generation or of a version, and changes nothing permanently: one that
    ends its server, or needs options or an environment of its own, is a `ServerCase`. The first of these tests that a
    process runs starts the server, and so does the one after a test that leaves it anything but idle.
    """

    shared: ClassVar[ServerProcess | None] = None
    shared_by: ClassVar[type | None] = None
    topics = ("orchestrator.manifest", "trigger.attempts", "trigger.dlq", "trigger.inbox.envelopes", "trigger.outbox")

    def setUp(self) -> None:
        """Use the directory of the shared server, and remove every file that the test before wrote."""
        super().setUp()
        if SharedServerCase.shared_by is not type(self):
            self.discard()
        server = SharedServerCase.shared
        if server is None:
            return
        self.directory, self.environ = server.directory, server.environ
        self.seen_path, self.release_path = (Path(self.environ[name]) for name in ("TEST_SEEN", "TEST_RELEASE"))
        for path in self.directory.iterdir():
            if path.is_dir() and path.name != "state":
                shutil.rmtree(path)
            elif path.name not in ("state", "stdout.log"):
                path.unlink()

    @classmethod
    def discard(cls) -> None:
        """End the shared server."""
        if SharedServerCase.shared is not None:
            SharedServerCase.shared.stop()
        SharedServerCase.shared = None

    def serve(self, *arguments: str, ready: bool = True, **more: Any) -> ServerProcess:
        """Return the shared server, which has adopted the files of this test."""
        assert ready and not arguments and not more, "a shared server is started plainly"
        self.write_missing()
        if SharedServerCase.shared is None:
            SharedServerCase.shared = ServerProcess(self.directory, environ=self.environ).wait_ready()
            SharedServerCase.shared_by = type(self)
        server = SharedServerCase.shared
        self.addCleanup(self.leave, server)
        answer = server.reload()
        self.assertEqual(answer.status, 200, answer)
        for topic in self.topics:
            while records := server.records(topic, after=server.read_from.get(topic, 0)):
                server.read_from[topic] = records[-1]["number"]
        return server

    def leave(self, server: ServerProcess) -> None:
        """Release calls that wait for the test; leave the server to the next test if nothing is in flight then."""
        self.release()
        self.assert_no_secrets(server)
        try:
            wait_until(lambda: not any(each["in_flight"] for each in server.bindings()), "an idle server")
        except Exception:
            self.discard()


atexit.register(SharedServerCase.discard)
