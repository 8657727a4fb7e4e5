"""The state directory: who can read it, its key, the state file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.lifecycle import DeadLettered, Lifecycle, Received, RequestRefused, Settled, SettledDelivery, VersionEnded
from harn.manifest.model import TriggerSpec
from harn.model.delivery import DONE, WAITING, Attempt, Settlement
from harn.observability.metrics import Metrics
from harn.observability.subscribers import Counting
from harn.orchestrator import state_directory
from harn.orchestrator.operations import Activation
from harn.orchestrator.state_directory import (
    INTERVAL,
    StateFile,
    StateFileKeeper,
    make_private,
    read_or_make_key,
    replace_file,
)
from harn.orchestrator.status import ServerFacts, ServerState, describe
from harn.reload.report import ReloadReport
from harn.statistics.figures import Figures, StoredTotals
from harn.store.lock import StateDirectoryLock, is_alive, read_state, running_url, state_path
from harn.store.sqlite.schema import connect_writer
from harn.store.statistics import TriggerBacklog, TriggerTotal
from harn.triggers.binding import ACTIVE, DRAINING, BindingVersion, Definition
from harn.triggers.routing import Ramp


class PrivacyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(cast("ILogObserver", self.keep))
        self.addCleanup(globalLogPublisher.removeObserver, cast("ILogObserver", self.keep))
        self.directory = Path(self.mktemp()).absolute()

    @staticmethod
    def make_open(path: Path) -> None:
        """Make an empty file that every user may use, whatever the umask."""
        path.write_text("")
        path.chmod(0o666)

    def keep(self, event: Any) -> None:
        """Keep the records at warning."""
        if event.get("log_namespace") == "harn" and event["log_level"].name == "warn":
            self.lines.append(event["log_format"].format(**event))

    def modes(self) -> dict[str, int]:
        """Return every mode, by name."""
        return {
            str(each.relative_to(self.directory)): each.stat().st_mode & 0o777 for each in self.directory.rglob("*")
        }

    def test_new_files(self) -> None:
        """What is made is private, with the usual umask, too; SQLite's files beside the database included."""
        lock = StateDirectoryLock(str(self.directory))
        lock.acquire()
        self.addCleanup(lock.release)
        database = connect_writer(
            str(self.directory / "events.sqlite"), create=True, synchronous="OFF", busy_timeout=1.0
        )
        self.addCleanup(database.close)
        (self.directory / "orchestrator-state.json.tmp").write_text("left by a crash")
        replace_file(str(self.directory / "orchestrator-state.json"), b"{}")
        expected = ("lock", "events.sqlite", "events.sqlite-wal", "events.sqlite-shm", "orchestrator-state.json")
        self.assertEqual(self.modes(), dict.fromkeys(expected, 0o600))
        make_private(str(self.directory))
        self.assertEqual(self.lines, [])

    def test_files_of_before(self) -> None:
        """Existing files of harn become private; other files, and links, are left as they are."""
        logs = self.directory / "logs"
        logs.mkdir(parents=True, mode=0o755)
        ours = (
            "events.sqlite",
            "events.sqlite-wal",
            "running-7",
            "token",
            "logs/orchestrator.log",
            "logs/orchestrator.log.1",
        )
        for name in (*ours, "harn.toml", "logs/other.log"):
            self.make_open(self.directory / name)
        outside = Path(self.mktemp())
        self.make_open(outside)
        (self.directory / "lock").symlink_to(outside.absolute())
        self.directory.chmod(0o750)
        make_private(str(self.directory))
        modes = self.modes()
        self.assertEqual({name: modes[name] for name in ours}, dict.fromkeys(ours, 0o600))
        self.assertEqual((modes["logs"], modes["logs/other.log"], modes["harn.toml"]), (0o700, 0o666, 0o666))
        self.assertEqual(outside.stat().st_mode & 0o777, 0o666)
        (line,) = self.lines
        self.assertIn("(mode 0750)", line)
        self.assertIn(f"type: chmod 700 {self.directory}", line)

    def test_what_cannot_be_changed(self) -> None:
        """A file whose mode cannot be changed causes a warning, and the server starts."""
        self.directory.mkdir(mode=0o700)
        self.make_open(self.directory / "token")

        def chmod(path: str, mode: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "chmod", chmod)
        make_private(str(self.directory))
        (line,) = self.lines
        self.assertIn(f"{self.directory}/token (mode 0666)", line)


class KeyTests(SynchronousTestCase):
    """The key that makes digests of secrets useless to others."""

    def test_key(self) -> None:
        """The key is made once, readable by its owner only; one of another length is made again."""
        directory = self.mktemp()
        os.mkdir(directory)
        key = read_or_make_key(directory)
        self.assertEqual((len(key), read_or_make_key(directory)), (32, key))
        path = Path(directory) / "digest.key"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        path.write_bytes(b"short")
        self.assertEqual(len(read_or_make_key(directory)), 32)
        self.assertRaises(OSError, read_or_make_key, "/nowhere/at/all")


def write(path: str, text: str) -> None:
    """Write a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def json_line(value: object) -> bytes:
    """Encode a document."""
    return json.dumps(value).encode()


def binding(trigger_id: str, version: int, state: str) -> BindingVersion:
    """Make a version of a trigger."""
    spec = TriggerSpec(id=trigger_id, kind="webhook", provider="github", path="/" + trigger_id, handler="h:f")
    made = BindingVersion(Definition.of(spec, "fp", "code", None), version, "bundle")
    made.state = state
    return made


def settled(settlement: Settlement) -> Settled:
    """Make the event of an outcome of ``gh@v2``."""
    delivery = SettledDelivery("gh", "github", "gh@v2", "evt", b"", predicate_passed=False, settlement=settlement)
    return Settled.of([delivery])


FACTS = ServerFacts(
    host="0.0.0.0",
    port=8080,
    tls=False,
    manifest_path="/m/harn.toml",
    state_dir="/s",
    started_at=0.0,
    pid=77,
    secret_provider_chain="env -> keyring",
    event_log_backend="sqlite",
    event_log_location="/s/events.sqlite",
    role="single-tenant",
)


class DescribeTests(SynchronousTestCase):
    """The document."""

    def test_running(self) -> None:
        """A running server: its versions with their counts and their trigger's figures, and its last reload."""
        old, new = binding("gh", 1, DRAINING), binding("gh", 2, ACTIVE)
        old.in_flight = 3
        lifecycle = Lifecycle()
        metrics = Metrics()
        Counting(metrics, lifecycle)
        attempt = Attempt(
            number=1, version=2, started_at=0.0, completed_at=0.0, outcome="failed", error_class="rejected"
        )
        for event, times in (
            (Received("gh", "github", "gh@v2"), 4),
            (settled(Settlement(delivery_id=1, state=DONE, version=2, attempts=1, attempt=attempt)), 5),
            (settled(Settlement(delivery_id=1, state=WAITING, version=2, attempts=1, attempt=attempt)), 6),
            (DeadLettered("gh", "github", "gh@v2", "rejected", 1), 7),
            (RequestRefused("gh", "github", ("gh@v2",), 401), 8),
        ):
            for _ in range(times):
                lifecycle.emit(event)
        total = TriggerTotal(trigger_id="gh", accepted=9, refused=8, last_success=1.0)
        late = {"gh": TriggerBacklog(trigger_id="gh", next_due=2.0)}
        of_trigger = {
            "accepted": 9,
            "running": 2,
            "waiting": 3,
            "dead": 4,
            "refused": 8,
            "last_failure": None,
            "last_success": "1970-01-01T00:00:01.000Z",
            "next_due": "1970-01-01T00:00:02.000Z",
            "paused": True,
            "circuit": "open",
        }
        report = ReloadReport(
            status="error", source="cli", actor="key:a", generation=2, digest="sha256:1", error="bad", at=1.0
        )
        document = describe(
            FACTS,
            ServerState(
                generation=2,
                digest="sha256:0",
                pinned=False,
                bindings=[new, old],
                counts=metrics.versions,
                figures=Figures(
                    totals=StoredTotals({"gh": total}),
                    running={"gh": 2},
                    waiting={"gh": 3},
                    dead={"gh": 4},
                    backlogs=late,
                ),
                paused={"gh"},
                circuits={"gh": "open"},
                last_reload=report,
            ),
        )
        self.assertEqual(
            list(msgspec.to_builtins(document.triggers)),
            [
                {
                    "id": "gh",
                    "provider": "github",
                    "kind": "webhook",
                    "handler": "local",
                    "version": 2,
                    "state": "active",
                    "received": 4,
                    "dispatched": 5,
                    "failed": 6,
                    "dlq": 7,
                    "in_flight": 0,
                    **of_trigger,
                },
                {
                    "id": "gh",
                    "provider": "github",
                    "kind": "webhook",
                    "handler": "local",
                    "version": 1,
                    "state": "draining",
                    "received": 0,
                    "dispatched": 0,
                    "failed": 0,
                    "dlq": 0,
                    "in_flight": 3,
                    **of_trigger,
                },
            ],
        )
        head = msgspec.to_builtins(document.head)
        self.assertEqual(head["activations"], ({"provider": "github", "binding_count": 1},))
        self.assertEqual(head["connectors"], ("github",))
        self.assertEqual(head["bind"], "0.0.0.0:8080")
        self.assertEqual(head["listener_url"], "http://127.0.0.1:8080")
        self.assertEqual((head["status"], head["stopped_at"], head["pid"]), ("running", None, 77))
        self.assertEqual(head["harn_version"], harn.__version__)
        self.assertEqual(
            head["last_reload"],
            {"source": "cli", "actor": "key:a", "status": "error", "at": "1970-01-01T00:00:01.000Z", "error": "bad"},
        )

    def test_on_a_ramp(self) -> None:
        """Both versions have their entry, with their share; the trigger counts once, as what its newest version is."""
        stable, fresh, other = binding("gh", 1, ACTIVE), binding("gh", 2, ACTIVE), binding("other", 1, ACTIVE)
        state = ServerState(
            generation=2,
            digest="d",
            pinned=True,
            bindings=[fresh, other, stable],
            counts={},
            ramps={"gh": Ramp(stable, fresh, 0.07)},
        )
        document = describe(FACTS, state)
        shown = [(each["id"], each["version"], each.get("share")) for each in msgspec.to_builtins(document.triggers)]
        self.assertEqual(shown, [("gh", 2, 7.0), ("other", 1, None), ("gh", 1, 93.0)])
        self.assertEqual(document.head.activations, (Activation(provider="github", binding_count=2),))

    def test_stopped(self) -> None:
        """A server that ended says so, and when."""
        state = ServerState(generation=1, digest="d", pinned=False, bindings=[], counts={}, stopped_at=2.0)
        document = describe(FACTS, state)
        self.assertEqual((document.head.status, document.head.stopped_at), ("stopped", "1970-01-01T00:00:02.000Z"))
        self.assertIsNone(document.head.last_reload)

    def test_file_is_for_people_too(self) -> None:
        """The file is indented JSON that ends with a line end, with a line for each trigger."""
        for bindings in ([], [binding("a", 1, ACTIVE), binding("b", 1, ACTIVE)]):
            state = ServerState(generation=1, digest="ä", pinned=False, bindings=bindings, counts={})
            text = describe(FACTS, state).encode().decode()
            document = json.loads(text)
            self.assertEqual((document["digest"], len(document["triggers"])), ("ä", len(bindings)))
            self.assertTrue(text.startswith('{\n  "status"') and text.endswith("}\n"))
            self.assertEqual(len([line for line in text.splitlines() if '"id":' in line]), len(bindings))


class StateFileTests(SynchronousTestCase):
    """Replacing the file."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.clock = Clock()
        self.now = {"n": 0}
        self.threads: list[Callable[[], Deferred[None]]] = []
        self.path = state_path(self.directory)
        status: Any = SimpleNamespace(snapshot=self.snapshot)
        threads: Any = self
        self.file = StateFile(self.path, self.clock, threads, status)

    def snapshot(self) -> Any:
        """Return a snapshot whose text is a copy of ``now``."""
        return SimpleNamespace(encode=partial(json_line, self.now.copy()))

    def call(self, function: Callable[[], None]) -> Deferred[None]:
        """Keep the function of a thread until the test lets the thread run it."""
        done: Deferred[None] = Deferred()
        self.threads.append(lambda: maybeDeferred(function).chainDeferred(done))
        return done

    def run_thread(self) -> None:
        """Run the oldest function of the thread."""
        self.threads.pop(0)()

    def save(self) -> Deferred[None]:
        """Begin to save."""
        return Deferred.fromCoroutine(self.file.save())

    def test_saved_when_it_fires(self) -> None:
        """`save` fires once the file says what was so when the writing began."""
        saving = self.save()
        self.now["n"] = 1
        self.assertNoResult(saving)
        self.run_thread()
        self.successResultOf(saving)
        self.assertEqual(read_state(self.directory), {"n": 0})
        self.assertEqual(os.listdir(self.directory), [os.path.basename(self.path)])

    def keep(self) -> Deferred[None]:
        """Begin to look after the file, and let the thread look."""
        keeping = Deferred.fromCoroutine(self.file.keep())
        self.run_thread()
        return keeping

    def test_kept(self) -> None:
        """A file that was removed, cut short or written over is written again; one that is as it was is left."""
        saving = self.save()
        self.run_thread()
        self.successResultOf(saving)
        for harm in (lambda: os.unlink(self.path), lambda: os.truncate(self.path, 3), lambda: write(self.path, "{}")):
            harm()
            keeping = self.keep()
            self.run_thread()
            self.successResultOf(keeping)
            self.assertEqual(read_state(self.directory), {"n": 0})
        self.successResultOf(self.keep())
        self.assertEqual(self.threads, [])

    def test_replaced_meanwhile(self) -> None:
        """A replacement by this server that waits until the check has ended is not taken for another program's."""
        saving = self.save()
        self.run_thread()
        self.successResultOf(saving)
        keeping = Deferred.fromCoroutine(self.file.keep())
        self.now["n"] = 1
        waits = self.save()
        self.patch(self, "call", maybeDeferred)
        observer: Any = lambda event: self.fail(event["log_format"])  # noqa: E731
        self.patch(state_directory, "log", Logger(observer=observer))
        self.run_thread()
        self.successResultOf(keeping)
        self.successResultOf(waits)
        self.assertEqual(read_state(self.directory), {"n": 1})

    def test_kept_in_trouble(self) -> None:
        """What cannot be written is said once; it is tried again, and said when it is there again."""
        saving = self.save()
        self.run_thread()
        self.successResultOf(saving)
        said: list[str] = []
        observer: Any = lambda event: said.append(event["log_format"][:30])  # noqa: E731
        self.patch(state_directory, "log", Logger(observer=observer))
        os.rename(self.directory, self.directory + ".away")
        for _ in range(2):
            keeping = self.keep()
            self.run_thread()
            self.successResultOf(keeping)
        os.mkdir(self.directory)
        keeping = self.keep()
        self.run_thread()
        self.successResultOf(keeping)
        self.assertEqual(said, ["the state file {path} is lost:", "the state file {path} was remo"])

    def test_not_kept(self) -> None:
        """A file that was not written yet, or is another program's, is not looked after."""
        self.successResultOf(self.keep())
        saving = self.save()
        self.run_thread()
        self.successResultOf(saving)
        self.file.is_ours = False
        os.unlink(self.path)
        self.successResultOf(self.keep())
        self.assertEqual(os.listdir(self.directory), [])

    def test_keeper(self) -> None:
        """It looks every second, while it runs."""
        saving = self.save()
        self.run_thread()
        self.successResultOf(saving)
        keeper = StateFileKeeper(self.clock, self.file)
        keeper.startService()
        self.run_thread()
        self.clock.advance(1)
        self.run_thread()
        keeper.stopService()
        self.clock.advance(1)
        self.assertEqual(self.threads, [])

    def test_of_another(self) -> None:
        """While the file is another program's, nothing is written, not even what waited; then it is written again."""
        first, second = self.save(), self.save()
        self.file.is_ours = False
        self.file.save_soon()
        closing = Deferred.fromCoroutine(self.file.close())
        self.assertNoResult(closing)
        self.run_thread()
        for each in (first, second, closing, self.save()):
            self.successResultOf(each)
        self.assertEqual((self.threads, self.clock.getDelayedCalls()), ([], []))
        self.file.is_ours = True
        self.save()
        self.assertEqual(len(self.threads), 1)

    def test_one_at_a_time(self) -> None:
        """A second save begins when the first has ended, so that the newest is what stays."""
        first, second = self.save(), self.save()
        self.now["n"] = 2
        self.assertEqual(len(self.threads), 1)
        self.run_thread()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.run_thread()
        self.successResultOf(second)
        self.assertEqual(read_state(self.directory), {"n": 2})

    def test_who_stops_waiting_leaves_the_writing_be(self) -> None:
        """A save that is cancelled continues, and the next one still waits for it."""
        first = self.save()
        first.addErrback(lambda _: None)
        first.cancel()
        second = self.save()
        self.assertEqual(len(self.threads), 1)
        self.run_thread()
        self.run_thread()
        self.successResultOf(second)

    def test_failure_is_the_callers(self) -> None:
        """A file that cannot be written fails the save; the next one is tried again."""
        os.mkdir(self.path)
        saving = self.save()
        self.run_thread()
        self.failureResultOf(saving, OSError)
        self.assertEqual(os.listdir(self.directory), [os.path.basename(self.path)])
        os.rmdir(self.path)
        saving = self.save()
        self.run_thread()
        self.successResultOf(saving)

    def test_soon_is_once_a_second(self) -> None:
        """Many calls of `save_soon` within a second are one replacement, at its end."""
        self.file.save_soon()
        self.clock.advance(0)
        self.run_thread()
        for self.now["n"] in range(1, 10):
            self.file.save_soon()
        self.clock.advance(INTERVAL / 2)
        self.assertEqual(self.threads, [])
        self.clock.advance(INTERVAL / 2)
        self.run_thread()
        self.assertEqual(read_state(self.directory), {"n": 9})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_versions_that_end(self) -> None:
        """The file follows the events that change what it says: the end of a version."""
        lifecycle = Lifecycle()
        self.file.follow(lifecycle)
        lifecycle.emit(VersionEnded("gh", 1, "gh@v1", "/gh", is_last=False))
        self.clock.advance(0)
        self.run_thread()
        self.assertEqual(read_state(self.directory), {"n": 0})

    def test_a_save_tells_what_was_to_be_told_soon(self) -> None:
        """A save in between takes the place of the one that was planned."""
        self.save()
        self.run_thread()
        self.file.save_soon()
        self.save()
        self.run_thread()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure_of_soon_is_logged(self) -> None:
        """A failure of `save_soon`, which has no caller that waits, is in the log."""
        os.mkdir(self.path)
        self.file.save_soon()
        self.clock.advance(0)
        self.run_thread()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_close_waits(self) -> None:
        """`close` plans nothing more and waits for what is being written."""
        self.save()
        self.file.save_soon()
        closing = Deferred.fromCoroutine(self.file.close())
        self.assertNoResult(closing)
        self.run_thread()
        self.successResultOf(closing)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ReadingTests(SynchronousTestCase):
    """What other processes make of the file."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def write(self, **more: object) -> None:
        """Write a state file as a running server does."""
        document = {"status": "running", "pid": os.getpid(), "listener_url": "http://127.0.0.1:1", **more}
        replace_file(state_path(self.directory), json_line(document))

    def test_garbage_is_nothing(self) -> None:
        """A file that is missing, torn, or not a JSON object is read as no state."""
        self.assertIsNone(read_state(self.directory))
        for text in ('{"status": "run', "[]", "", "\x00"):
            with open(state_path(self.directory), "w", encoding="utf-8") as file:
                file.write(text)
            self.assertIsNone(read_state(self.directory), text)
            self.assertIsNone(running_url(self.directory))

    def test_running_needs_its_lock(self) -> None:
        """A server runs when its file says so, its process lives, and it holds the directory."""
        self.write()
        self.assertIsNone(running_url(self.directory))
        lock = StateDirectoryLock(self.directory)
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertEqual(running_url(self.directory), "http://127.0.0.1:1")
        self.write(status="stopped")
        self.assertIsNone(running_url(self.directory))
        for wrong in ({"pid": None}, {"pid": 2**70}, {"pid": -1}, {"listener_url": 5}):
            self.write(**wrong)
            self.assertIsNone(running_url(self.directory), wrong)

    def test_who_is_alive(self) -> None:
        """Our own process is alive, and process 1 as well; no process has a number below 1."""
        self.assertTrue(is_alive(os.getpid()))
        self.assertTrue(is_alive(1))
        self.assertFalse(is_alive(0))
