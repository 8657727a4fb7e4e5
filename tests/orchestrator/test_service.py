"""The life of a server in this process: it starts whole or not at all, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from harn.options import ServeOptions
from harn.orchestrator import service as service_module
from harn.orchestrator.assemble import Assembly
from harn.orchestrator.process import Signals
from harn.orchestrator.service import NotStarted, Orchestrator
from harn.reload.coordinator import Coordinator
from harn.server import Server
from harn.store.lock import StateDirectoryLock, read_state
from harn.testing.manifests import trigger_text
from harn.testing.server import GITHUB_SECRET, Answer, Connection
from harn.triggers.registry import Registry
from tests.test_docs import DOCS

HANDLERS = """
import asyncio, pathlib
async def on_event(event):
    return {"id": event.dedupe_key}
async def held(event):
    pathlib.Path(__file__).with_name("begun").touch()
    await asyncio.sleep(600)
"""


class TestReactor:
    """The reactor, which only trial stops."""

    def __init__(self) -> None:
        self.stops = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def stop(self) -> None:
        """Record that a service wants the end."""
        self.stops += 1


def children() -> set[str]:
    """Return the child processes of every thread of this process."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


class ServiceCase(TestCase):
    """A folder with a manifest, and servers in it."""

    timeout = 180

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        (self.root / "harn.toml").write_text(trigger_text("gh", events=()))
        (self.root / "handlers.py").write_text(HANDLERS)
        self.reactor = TestReactor()
        self.environ = {
            "HARN_SECRET_GITHUB_WEBHOOK_SECRET": GITHUB_SECRET.decode(),
            "HARN_ORCHESTRATOR_API_KEYS": "key",
        }
        self.options = ServeOptions(
            manifest=str(self.root / "harn.toml"),
            manifest_name="harn.toml",
            state_dir=str(self.root / "state"),
            host="127.0.0.1",
            port=0,
            shutdown_timeout=1.0,
            vm="inline",
        )
        self.errors: list[str] = []
        self.children = children()  # of tests before this one in the same process: they may share a server

    def service(self, **more: Any) -> Orchestrator:
        """Make a server, which is stopped after the test."""
        options = evolve(self.options, **more)
        assembly = Assembly(options=options, reactor=self.reactor, environ=self.environ)
        service = Orchestrator(self.reactor, StateDirectoryLock(options.state_dir), assembly)
        service.started.addErrback(self.not_started)
        self.addCleanup(lambda: service.stopService() if service.running else None)
        return service

    def not_started(self, failure: Failure) -> Failure:
        """Record the text for the operator."""
        self.errors.append(failure.getErrorMessage())
        return failure

    async def started(self, **more: Any) -> Orchestrator:
        """Start a server."""
        service = self.service(**more)
        service.startService()
        self.url = await service.started
        return service

    @staticmethod
    def server_of(service: Orchestrator) -> Server:
        assert service._server is not None
        return service._server

    def state(self) -> dict[str, Any]:
        """Return the content of the state file."""
        found = read_state(self.options.state_dir)
        assert found is not None
        return found

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for something, turn after turn."""
        for _ in range(2000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail(f"waited in vain for {what}")

    def hang_up(self) -> None:
        """Call the handler that is installed for SIGHUP; a real signal would reach the test run as well."""
        caught = signal.getsignal(signal.SIGHUP)
        assert callable(caught)
        caught(signal.SIGHUP, None)

    def ask(self, work: Callable[[Connection], Answer]) -> Deferred[Answer]:
        """Call a function on the server's URL in a thread."""

        def talk() -> Answer:
            connection = Connection(self.url, 20.0)
            try:
                return work(connection)
            finally:
                connection.close()

        answering: Deferred[Answer] = deferToThread(talk)
        return answering

    def assert_nothing_left(self) -> None:
        """See that lock, signals and children are gone; trial looks for sockets and timers."""
        lock = StateDirectoryLock(self.options.state_dir)
        lock.acquire()
        lock.release()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            self.assertNotIsInstance(getattr(signal.getsignal(number), "__self__", None), Signals)
        self.assertEqual(children() - self.children, set())


class LifeTests(ServiceCase):
    async def test_operations_are_described(self) -> None:
        """The reference page has each operation of a server, and the API description has its route."""
        service = await self.started()
        operations = self.server_of(service).operations
        page = (DOCS / "reference" / "operations.md").read_text(encoding="utf-8")
        described = {line.strip("# `") for line in page.splitlines() if line.startswith("### ")}
        self.assertEqual(described, {each.name for each in operations})
        answer = await self.ask(lambda to: to.request("GET", "/admin/openapi.json", headers={"X-API-Key": "key"}))
        self.assertEqual(set(answer.json()["paths"]), {f"/admin{each.route.path}" for each in operations})

    async def test_from_start_to_stop(self) -> None:
        """With child processes: it serves, delivers, writes its state, and ends with nothing left."""
        service = await self.started(vm="child", watch=True)
        self.assertEqual(self.state()["listener_url"], self.url)
        self.assertEqual((await self.ask(lambda it: it.request("GET", "/readyz"))).status, 200)
        answer = await self.ask(lambda it: it.deliver("/triggers/gh", delivery="d1"))
        self.assertEqual(answer.json()["binding"], "gh@v1")
        versions = self.server_of(service).metrics.versions
        await self.until(lambda: versions["gh@v1"].dispatched, "the handler")
        await service.stopService()
        self.assertEqual((service.exit_code, self.errors), (0, []))
        state = self.state()
        self.assertEqual((state["status"], state["triggers"][0]["dispatched"]), ("stopped", 1))
        self.assert_nothing_left()

    async def test_hang_up(self) -> None:
        """SIGHUP reloads; one that comes before the server is ready is kept until then."""
        service = self.service()
        service.startService()
        self.hang_up()
        await service.started
        coordinator = self.server_of(service)[Coordinator]
        await self.until(lambda: coordinator.last is not None and coordinator.last.source == "signal", "the reload")
        self.assertEqual(coordinator.generation, 1)
        (self.root / "handlers.py").write_text(HANDLERS + "#")
        self.hang_up()
        await self.until(lambda: coordinator.generation == 2, "generation 2")
        await service.stopService()
        self.assert_nothing_left()

    async def test_running_handler(self) -> None:
        """A handler that does not end in time is interrupted; its delivery is the next server's."""
        (self.root / "harn.toml").write_text(trigger_text("gh", events=(), handler="handlers:held"))
        service = await self.started(vm="child")
        await self.ask(lambda it: it.deliver("/triggers/gh", delivery="d1"))
        await self.until((self.root / "begun").exists, "the handler")
        await service.stopService()
        self.assert_nothing_left()
        (self.root / "harn.toml").write_text(trigger_text("gh", events=()))
        service = await self.started(vm="child")
        self.assertEqual(self.server_of(service)[Registry].active["gh"].version, 2)
        (revived,) = self.server_of(service)[Registry].draining()
        self.assertEqual((revived.key, revived.in_flight), ("gh@v1", 1))
        await service.stopService()
        self.assert_nothing_left()

    async def history(self, service: Orchestrator) -> list[tuple[int, float | None, str]]:
        """Return number, time of adoption and source of each generation that the store says was served."""
        records = await self.server_of(service).store.generations.history(9)
        return [(each.number, each.adopted_at, each.source) for each in records]

    async def test_numbers_over_restarts(self) -> None:
        """The same folder is the same generation, over a real store, and its history says when it was first adopted."""
        histories = []
        for _ in range(2):
            service = await self.started()
            self.assertEqual(self.server_of(service)[Coordinator].generation, 1)
            histories.append(await self.history(service))
            await service.stopService()
        self.assertEqual(len(histories[0]), 1)
        self.assertEqual(histories[0], histories[1])

    async def test_failed_starts_are_no_history(self) -> None:
        """A start that fails once the manifest is read serves nothing: no history, no number, no state file."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            for _ in range(2):
                service = self.service(port=taken.getsockname()[1])
                service.started.addErrback(lambda _: None)
                service.startService()
                await self.until(lambda it=service: it.exit_code, "the end")
                await service.stopService()
                self.assertIsNone(read_state(self.options.state_dir))
        service = await self.started()
        [(number, _, _)] = await self.history(service)
        (binding,) = self.server_of(service)[Registry]
        self.assertEqual((number, binding.key), (1, "gh@v1"))
        await service.stopService()

    async def test_reload_at_the_end(self) -> None:
        """A reload that runs when the server ends is cut off, and the end is not held up."""
        service = await self.started(vm="child")
        (self.root / "handlers.py").write_text("import pathlib, time\n" + IMPORTING + HANDLERS)
        self.hang_up()
        await self.until((self.root / "importing").exists, "the import")
        await service.stopService()
        self.assert_nothing_left()

    async def test_stop_while_starting(self) -> None:
        """A server that is stopped while its handlers are still imported ends well, at once, with nothing left."""
        (self.root / "handlers.py").write_text("import pathlib, time\n" + IMPORTING + HANDLERS)
        service = self.service(vm="child")
        service.startService()
        await self.until((self.root / "importing").exists, "the import")
        await service.stopService()
        self.assertEqual((service.exit_code, self.errors), (0, []))
        self.assert_nothing_left()

    async def test_stop_before_it_serves(self) -> None:
        """A server that is stopped after it wrote its state file and before it serves does not leave it "running"."""
        recovering: list[Deferred[int]] = []

        async def recover(server: Server) -> int:
            recovering.append(Deferred())
            return await recovering[0]

        self.patch(service_module, "recover", recover)
        service = self.service()
        service.startService()
        await self.until(lambda: recovering, "the recovery")
        self.assertEqual(self.state()["status"], "running")
        await service.stopService()
        self.assertEqual(self.state()["status"], "stopped")
        self.assert_nothing_left()


IMPORTING = """
pathlib.Path(__file__).with_name("importing").touch()
time.sleep(600)
"""


class NotStartedTests(ServiceCase):
    """A start that fails, at each step."""

    async def refused(self, message: str, **more: Any) -> None:
        """See a start fail with ``message`` on one of its lines, ask for the reactor's end, and leave nothing."""
        service = self.service(**more)
        outcome: list[Any] = []
        service.started.addErrback(outcome.append)
        service.startService()
        await self.until(lambda: self.reactor.stops, "the end")
        self.assertTrue(outcome[0].check(NotStarted))
        self.assertEqual(service.exit_code, 1)
        self.assertIn(message, "\n".join(self.errors))
        await service.stopService()
        self.assert_nothing_left()

    async def test_state_directory(self) -> None:
        """The state directory is held by another server."""
        other = StateDirectoryLock(self.options.state_dir)
        other.acquire()
        service = self.service()
        service.started.addErrback(lambda _: None)
        service.startService()
        await self.until(lambda: self.reactor.stops, "the end")
        self.assertIn(f"pid {os.getpid()}", self.errors[0])
        await service.stopService()
        with self.assertRaises(Exception):  # noqa: B017 - still the other's
            StateDirectoryLock(self.options.state_dir).acquire()
        other.release()

    async def test_parts(self) -> None:
        """The parts cannot be put together."""
        (self.root / "state").mkdir()
        (self.root / "state" / "digest.key").mkdir()
        await self.refused("digest.key")

    async def test_store(self) -> None:
        """The event log cannot be opened."""
        (self.root / "state").mkdir()
        (self.root / "state" / "events.sqlite").write_bytes(b"this is no database" * 100)
        await self.refused("events.sqlite")

    async def test_manifest(self) -> None:
        """The manifest has problems: each is a line."""
        text = trigger_text("gh", events=(), extra="colour = 1") + trigger_text("gl", events=(), handler="none:none")
        (self.root / "harn.toml").write_text(text)
        await self.refused("colour", vm="child")
        self.assertEqual(len(self.errors), 1)

    async def test_certificate(self) -> None:
        """The certificate cannot be used."""
        (self.root / "cert.pem").write_text("nothing")
        await self.refused("holds no PEM", cert=str(self.root / "cert.pem"), key=str(self.root / "key.pem"))

    async def test_port(self) -> None:
        """The port is in use."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            await self.refused("is in use", port=taken.getsockname()[1], vm="child")

    async def test_background(self) -> None:
        """A service that cannot be started; those that were before it end."""
        service = self.service(watch=True)

        class Failing(Service):
            def startService(self) -> None:
                raise OSError("no background")

        make = Assembly.make

        def made(assembly: Assembly) -> Server:
            server = make(assembly)
            server.background.add(Failing())
            return server

        self.patch(Assembly, "make", made)
        service.started.addErrback(lambda _: None)
        service.startService()
        await self.until(lambda: self.reactor.stops, "the end")
        self.assertIn("no background", self.errors[0])
        await service.stopService()
        self.assertFalse(any(each.running for each in self.server_of(service).background))
        self.assert_nothing_left()
